from llm_router.core.book import Book, Habits, Line
from llm_router.core.instance import Instance, State
from llm_router.core.words import HOST_DEVICE, Footprint, InstanceId, Model, ModelName, Needs, Settings

A = ModelName("a")


def test_a_caller_that_comes_back_in_time_is_expected_again() -> None:
    habits = Habits()
    habits.came("ann", 0.0, 2.0)
    assert not habits.left("ann", 5.0)
    habits.came("ann", 6.0, 2.0)
    assert habits.left("ann", 9.0)
    habits.came("ann", 20.0, 2.0)
    assert not habits.left("ann", 21.0)


def test_only_so_many_callers_are_remembered() -> None:
    habits = Habits()
    habits.left("ann", 0.0)
    habits.came("ann", 1.0, 2.0)
    for number in range(2000):
        habits.left(f"caller-{number}", 1.0)
    assert not habits.left("ann", 1.0)


def test_the_quiet_clock_stands_still_while_engines_are_loaded_or_stopped() -> None:
    book = Book()
    book.pass_time(5.0)
    book.pass_time(7.0)
    assert book.quiet == 2.0
    inst = Instance(InstanceId("a#1"), A, "", (), 1, None, State.starting, 7.0)
    book.instances[inst.id] = inst
    book.pass_time(100.0)
    assert book.quiet == 2.0
    inst.state = State.ready
    book.pass_time(101.0)
    assert book.quiet == 3.0
    book.pass_time(50.0)
    assert (book.quiet, book.now) == (3.0, 101.0)


def test_ids_go_on_from_an_earlier_run() -> None:
    book = Book()
    book.serial = 7
    assert [book.next_id(A), book.next_id(A)] == ["a#8", "a#9"]


def test_a_machine_without_devices_is_a_host_without_limit() -> None:
    book = Book()
    book.configure((), Settings())
    assert list(book.devices) == [HOST_DEVICE]


def test_a_declared_footprint_goes_before_a_learnt_one() -> None:
    line = Line(Model(A, needs=Needs(1, Footprint(5))), learnt=Footprint(3))
    assert line.footprint == Footprint(5)
    assert Line(Model(A), learnt=Footprint(3)).footprint == Footprint(3)
    assert repr(line) == "<line a: None, 0 waiting>"
