from math import inf

from llm_router.core.agenda import Agenda


def test_the_earliest_moment_counts() -> None:
    agenda = Agenda()
    assert agenda.due == inf
    for moment in (5.0, 3.0, inf, 4.0):
        agenda.at(moment)
    assert agenda.due == 3.0
