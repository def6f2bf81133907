from llm_router.config.problems import ConfigError, Place, Problem, did_you_mean, nearest


def test_problems_are_told_in_the_order_of_the_text_and_once() -> None:
    late = Problem(Place("a.yml", 9, 1), "cannot b")
    early = Problem(Place("a.yml", 2, 5), "cannot a", "Do c")
    error = ConfigError([late, early, late])
    assert error.problems == (early, late)
    assert str(error) == "a.yml:2:5: cannot a. Do c\na.yml:9:1: cannot b"


def test_the_nearest_word() -> None:
    assert nearest("prot", ["port", "host"]) == "port"
    assert nearest("PORT", ["port"]) == "port"
    assert nearest("zzz", ["port"]) is None
    assert nearest("x" * 100_000, ["port"]) is None


def test_without_a_near_word_few_known_ones_are_listed() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "Known here: a, b"
    assert did_you_mean("zzz", [f"name{n}" for n in range(20)]) is None
    assert did_you_mean("zzz", []) is None
