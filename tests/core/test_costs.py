from llm_router.core.costs import UNKNOWN_S, Costs
from llm_router.core.words import Model, ModelName

A = Model(ModelName("a"), load_s=40.0, wake_s=3.0)
B = Model(ModelName("b"))


def test_the_configuration_holds_until_something_was_measured() -> None:
    costs = Costs()
    assert (costs.load_s(A), costs.wake_s(A), costs.load_s(B), costs.stop_s(A)) == (40.0, 3.0, None, 0.0)
    for seconds in (10.0, 30.0, 20.0):
        costs.loaded(A.name, seconds)
        costs.woken(A.name, seconds / 10)
        costs.stopped(A.name, seconds / 5)
    assert (costs.load_s(A), costs.wake_s(A), costs.stop_s(A)) == (20.0, 2.0, 4.0)


def test_only_the_last_five_count() -> None:
    costs = Costs()
    for seconds in (900.0, 900.0, 900.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        costs.loaded(A.name, seconds)
    assert costs.load_s(A) == 3.0


def test_a_switch_is_measured_by_pair() -> None:
    costs = Costs()
    assert costs.switch_s(A, B) == UNKNOWN_S
    assert costs.switch_s(B, A) == 40.0
    costs.stopped(B.name, 2.0)
    assert costs.switch_s(B, A) == 42.0
    costs.switched(B.name, A.name, 7.0)
    assert costs.switch_s(B, A) == 7.0
    assert costs.switch_s(A, B) == UNKNOWN_S


def test_waking_is_cheaper_than_loading_if_it_is_known() -> None:
    costs = Costs()
    assert costs.reload_s(A, asleep=True) == 3.0
    assert costs.reload_s(A, asleep=False) == 40.0
    assert costs.reload_s(B, asleep=True) == UNKNOWN_S


def test_what_was_measured_of_a_changed_model_is_forgotten() -> None:
    costs = Costs()
    costs.loaded(A.name, 1.0)
    costs.switched(A.name, B.name, 1.0)
    costs.switched(B.name, A.name, 1.0)
    costs.forget(A.name)
    assert costs.load_s(A) == 40.0
    assert costs.switch_s(A, B) == UNKNOWN_S
