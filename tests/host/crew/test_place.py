"""What is known of an instance, and what of it the next router finds."""

from pathlib import Path

from llm_router.config import shelf
from llm_router.config.load import Config, parse
from llm_router.core.words import DeviceId, InstanceId
from llm_router.engines import registry
from llm_router.host.crew.place import Place, folder_name, noted
from llm_router.host.supervisors.supervisor import Handle

ONE = InstanceId("m#1")


def config(text: str = "models: {m: {backend: sglang, path: /m}}") -> Config:
    return parse(text, "x.yml", {"HOME": "/home/me"}, lambda path: path, registry.names(), folder="/etc/r")


def indices(devices: tuple[DeviceId, ...]) -> tuple[int, ...]:
    known = {DeviceId("GPU-a"): 0, DeviceId("GPU-b"): 1}
    return tuple(known[device] for device in devices)


def found(folder: Path, note: dict[str, str], wanted: Config | None = None) -> Place | None:
    return noted(wanted or config(), Handle(ONE, "token", 7, folder / "log", note), indices, 5.0)


def a_note(folder: Path) -> dict[str, str]:
    return {"model": "m", "revision": shelf.revision(config(), "m"), "port": "4711", "devices": "GPU-b,GPU-a",
            "directory": str(folder / "work"), "key": "secret"}  # fmt: skip


def test_what_was_noted_is_found_again(tmp_path: Path) -> None:
    place = found(tmp_path, a_note(tmp_path))
    assert place is not None
    assert (place.job.port, place.job.devices, place.job.key) == (4711, (1, 0), "secret")
    assert place.note() == a_note(tmp_path)
    assert place.settled.is_set()


def test_its_log_is_read_without_any_of_its_keys(tmp_path: Path) -> None:
    place = found(tmp_path, a_note(tmp_path))
    assert place is not None
    assert place.tail is not None
    launch = place.engine.launch(place.job)
    (tmp_path / "log").write_text(f"keys: {' '.join(launch.secrets)} end\n")
    (line,) = place.tail.read_new()
    assert len(launch.secrets) == 2, "SGLang prints the admin key too"
    assert not any(secret in line for secret in launch.secrets)


def test_what_is_not_wanted_as_it_is_is_not_taken_over(tmp_path: Path) -> None:
    note = a_note(tmp_path)
    assert found(tmp_path, note, config("models: {m: {backend: sglang, path: /m, context: 9}}")) is None
    assert found(tmp_path, note, config("models: {n: {backend: sglang, path: /m}}")) is None
    assert found(tmp_path, {**note, "devices": "GPU-gone"}) is None


def test_sleep_is_noted_where_the_next_router_looks(tmp_path: Path) -> None:
    def asleep() -> bool:
        place = found(tmp_path, a_note(tmp_path))
        assert place is not None
        return place.asleep

    place = found(tmp_path, a_note(tmp_path))
    assert place is not None
    assert not asleep()
    place.note_asleep(True)
    assert asleep()
    place.note_asleep(False)
    assert not asleep()


def test_any_name_is_a_folder() -> None:
    assert folder_name(InstanceId("owner/Model v1#3")) == "owner-Model-v1-3"
    assert folder_name(InstanceId("../..#1")) == "-..-1"
    assert folder_name(InstanceId("...")) == "-"
