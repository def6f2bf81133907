"""The adapter of llama.cpp: command lines by installed flags, files judged before a start, log and causes."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import DeviceId, FailureKind
from llm_router.demo.llama_server import parser
from llm_router.demo.tinymodel import TinyModel, model_bytes
from llm_router.engines.engine import Answer, Check, Ended, Job, Need, Verdict
from llm_router.engines.llamacpp import SERVES, LlamaCpp
from llm_router.host.machine.programs import options_of

ENGINE = LlamaCpp()
LOGS = Path(__file__).parent / "llamacpp"
PROGRAM = "/opt/llama.cpp/build/bin/llama-server"
JOB = Job("alpha", (PROGRAM,), 8085, path="/models/alpha.gguf", context=8192, parallel=4, devices=(0, 2), key="k1")


def argv(job: Job) -> str:
    return " ".join(ENGINE.launch(job).argv)


def test_everything_is_said_so_that_nothing_is_left_to_the_engine() -> None:
    launch = ENGINE.launch(JOB)
    assert " ".join(launch.argv) == (
        f"{PROGRAM} -m /models/alpha.gguf --alias alpha --host 127.0.0.1 --port 8085 -np 4 -kvu -c 8192 "
        "-ngl all -fit off --sse-ping-interval 1 -lv 4 --offline --metrics"
    )
    assert launch.env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2", "LLAMA_API_KEY": "k1"}
    assert launch.files == ()


def test_a_build_before_the_fitting_gets_its_own_words() -> None:
    old = frozenset(
        ["-m", "--model", "--alias", "--host", "--port", "-c", "-np", "-ngl", "--metrics", "-fa", "--mlock"]
    )
    assert argv(replace(JOB, flags=old)) == (
        f"{PROGRAM} -m /models/alpha.gguf --alias alpha --host 127.0.0.1 --port 8085 -np 4 -c 32768 -ngl 999 --metrics"
    )


def test_a_wanted_flag_that_the_build_lacks_is_named() -> None:
    old = frozenset({"-m", "--alias", "--host", "--port", "-c"})
    with pytest.raises(ValueError, match=r"cannot pass -np: the installed program does not list it"):
        ENGINE.launch(replace(JOB, flags=old))
    with pytest.raises(ValueError, match=r"cannot pass the option 'ctk': .* does not list -ctk"):
        ENGINE.launch(replace(JOB, parallel=None, flags=old, options={"ctk": "q8_0"}))


def test_options_win_over_what_the_router_would_pass() -> None:
    options = {"ctx-size": 100, "gpu_layers": 7, "--fit": True, "metrics": False, "lv": 1, "flash-attn": True}
    words = argv(replace(JOB, options=options, parallel=None))
    assert words.endswith("--sse-ping-interval 1 --offline --ctx-size 100 --gpu-layers 7 -fit on -lv 1 --flash-attn on")
    assert "-c 8192" not in words
    assert "--metrics" not in words


def test_options_are_rendered_by_their_kind() -> None:
    options = {
        "ctk": "q8_0",
        "mmap": False,
        "mlock": True,
        "ts": [3, 1],
        "chat-template-kwargs": {"thinking": False},
        "slots": False,
        "seed": None,
        "temp": 0.5,
    }
    bare = replace(JOB, options=options, context=None, parallel=None, devices=(), key=None)
    assert argv(bare).partition("--metrics ")[2] == (
        '-ctk q8_0 --no-mmap --mlock -ts 3,1 --chat-template-kwargs {"thinking": false} --no-slots --temp 0.5'
    )
    assert ENGINE.launch(bare).env == {}


@pytest.mark.parametrize("name", ["port", "--host", "model", "api_key", "sleep-idle-seconds", "models-dir"])
def test_what_the_router_decides_cannot_be_an_option(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot pass the option .* to llama\.cpp for alpha: "):
        ENGINE.launch(replace(JOB, options={name: "x"}))


def test_without_a_path_it_would_be_a_router() -> None:
    with pytest.raises(ValueError, match="cannot start alpha: it has no path"):
        ENGINE.launch(replace(JOB, path=""))


def test_the_models_own_environment_wins() -> None:
    env = {"CUDA_VISIBLE_DEVICES": "GPU-1", "GGML_VK_VISIBLE_DEVICES": "1"}
    assert ENGINE.launch(replace(JOB, env=env)).env["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_all_that_it_passes_is_known_to_the_demos_server() -> None:
    job = replace(JOB, options={"threads": 1, "load-mode": "none", "embeddings": True, "fa": True, "ctk": "q8_0"})
    parsed = parser().parse_args(ENGINE.launch(job).argv[1:])
    assert vars(parsed)["model.path"] == "/models/alpha.gguf"
    assert parsed.sse_ping_interval == 1


def test_the_demos_server_lists_in_its_help_what_the_adapter_passes() -> None:
    listed = options_of(parser().format_help().encode())
    assert ENGINE.launch(replace(JOB, flags=listed)) == ENGINE.launch(JOB)


# -- before the start


def test_checks_name_program_files_and_all_parts() -> None:
    job = replace(JOB, path="big-00001-of-00003.gguf", model_dir="/models", options={"mmproj": "/models/eyes.gguf"})
    assert ENGINE.checks(job) == (
        Check(Need.program, PROGRAM),
        *(Check(Need.file, f"/models/big-0000{n}-of-00003.gguf") for n in (1, 2, 3)),
        Check(Need.file, "/models/eyes.gguf"),
        Check(Need.model_header, "/models/big-00001-of-00003.gguf"),
    )


def test_without_a_command_it_is_looked_for_on_the_path() -> None:
    job = replace(JOB, command=())
    assert ENGINE.checks(job)[0] == Check(Need.program, "llama-server")
    assert ENGINE.launch(job).argv[0] == "llama-server"
    assert ENGINE.help_argv(job) == ("llama-server", "--help")


TINY = b"".join(model_bytes(TinyModel("alpha", "I am alpha.")))


def judged(head: bytes, size: int | None = None, path: str = JOB.path) -> tuple[FailureKind, str] | None:
    failure = ENGINE.judge_file(JOB, path, head, len(head) if size is None else size)
    return (failure.kind, failure.cause) if failure else None


def test_a_whole_model_passes_and_a_truncated_one_does_not() -> None:
    assert judged(TINY) is None
    assert judged(TINY[:100_000], len(TINY)) is None
    for size in (len(TINY) - 1, 100_000, 500):
        found = judged(TINY[:size])
        assert found is not None
        assert found[0] is FailureKind.bad_file
        assert "cut off" in found[1]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (struct.pack("<Q", 64) + b'{"__metadata__":{}}', "but safetensors; serve its folder with sglang, vllm"),
        (b"PK\x03\x04....", "but a PyTorch or zip archive"),
        (b"tjgg\x03\0\0\0", "but of the format before it"),
        (b"\n<!DOCTYPE html>", "but a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "but a pointer of Git LFS"),
        (b"", "it begins otherwise"),
        (b"\0" * 64, "it begins otherwise"),
    ],
)
def test_what_is_no_gguf_is_told_for_what_it_is(head: bytes, words: str) -> None:
    found = judged(head)
    assert found is not None
    assert found[0] is FailureKind.bad_file
    assert f"{JOB.path} is not a GGUF file" in found[1]
    assert words in found[1]


def gguf(tensors: int = 1, **keys: str | int) -> bytes:
    """A file of one tiny tensor with these keys, whose dots are written as double underscores."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    pairs = b""
    for key, value in keys.items():
        kind, raw = (8, text(value)) if isinstance(value, str) else (4, struct.pack("<I", value))
        pairs += text(key.replace("__", ".")) + struct.pack("<I", kind) + raw
    table = b"".join(text(f"t{n}") + struct.pack("<IQIQ", 1, 8, 0, 32 * n) for n in range(tensors))
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(keys)) + pairs + table
    return head + bytes(-len(head) % 32) + bytes(32 * tensors)


@pytest.mark.parametrize(
    ("file", "path", "words"),
    [
        (gguf(general__architecture="clip"), JOB.path, "is a vision projector; pass it as mmproj"),
        (gguf(general__architecture="llama", general__type="adapter"), JOB.path, "is a LoRA adapter"),
        (gguf(0, general__architecture="llama"), JOB.path, "holds a vocabulary but no weights"),
        (gguf(split__no=1, split__count=3), "/m/a-00002-of-00003.gguf", "is part 2 of 3; give the first part"),
        (
            gguf(general__architecture="llama", split__no=0, split__count=3),
            "/m/a.gguf",
            "does not end in -00001-of-00003.gguf",
        ),
    ],
)
def test_a_gguf_that_is_no_model_is_told_for_what_it_is(file: bytes, path: str, words: str) -> None:
    found = judged(file, path=path)
    assert found is not None
    assert words in found[1]


def test_the_first_part_passes() -> None:
    assert (
        judged(gguf(general__architecture="llama", split__no=0, split__count=2), path="/m/a-00001-of-00002.gguf")
        is None
    )


@given(st.binary(max_size=300), st.integers(0, 1 << 40))
def test_no_bytes_make_the_judge_raise(raw: bytes, size: int) -> None:
    ENGINE.judge_file(JOB, JOB.path, b"GGUF" + raw, size)
    ENGINE.judge_file(JOB, JOB.path, raw, size)


# -- the log


def tail(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text().splitlines()


@pytest.mark.parametrize(
    ("log", "kind", "cause"),
    [
        (
            "missing",
            FailureKind.missing_file,
            "cannot load alpha: its file /models/alpha.gguf does not exist; correct its path",
        ),
        ("garbage", FailureKind.bad_file, "cannot load alpha: /models/alpha.gguf is not a GGUF file"),
        (
            "truncated",
            FailureKind.bad_file,
            "cannot load alpha: /models/alpha.gguf is damaged or cut off; download or copy it again",
        ),
        (
            "arch",
            FailureKind.unsupported,
            "cannot load alpha: this build of llama.cpp does not know the architecture wonka; update it",
        ),
        (
            "port",
            FailureKind.port_in_use,
            "cannot start alpha: port 8085 is in use by another process; stop that or choose another port",
        ),
        (
            "argument",
            FailureKind.bad_argument,
            "cannot start alpha: llama.cpp does not know the argument --wonka; correct args of the model or backend",
        ),
        (
            "value",
            FailureKind.bad_argument,
            (
                "cannot start alpha: llama.cpp refuses the value of -ctk ('wonka' is none of its values); "
                "correct args of the model or backend"
            ),
        ),
        (
            "oom",
            FailureKind.out_of_memory,
            (
                "cannot load alpha: out of memory on GPU 2, which could not give 21536.00 MiB more; lower its context or "
                "parallel, or give it more devices"
            ),
        ),
        (
            "cache",
            FailureKind.out_of_memory,
            (
                "cannot load alpha: out of memory on GPU 0, which could not give 8192.00 MiB more; lower its context or "
                "parallel, or give it more devices"
            ),
        ),
        (
            "library",
            FailureKind.missing_program,
            f"cannot start alpha: the engine's installation lacks the library libcudart.so.12; mend {PROGRAM}",
        ),
    ],
)
def test_each_log_is_read_for_its_cause(log: str, kind: FailureKind, cause: str) -> None:
    failure = ENGINE.explain(JOB, Ended(1), tail(log))
    assert (failure.kind, failure.cause) == (kind, cause)
    assert failure.tail == tuple(tail(log))


def test_memory_failures_name_the_device_for_the_scheduler() -> None:
    job = replace(JOB, device_ids=(DeviceId("GPU-a"), DeviceId("GPU-c")))
    assert ENGINE.explain(job, Ended(1), tail("oom")).device == "GPU-c"


@pytest.mark.parametrize(
    ("log", "code", "kind", "words"),
    [
        ("abort", -6, FailureKind.driver, "an illegal memory access was encountered"),
        ("ready", -9, FailureKind.crashed, "killed by SIGKILL, perhaps by the kernel for lack of main memory"),
        ("ready", -11, FailureKind.crashed, "killed by SIGSEGV"),
        ("ready", 0, FailureKind.crashed, "ended by itself with exit code 0"),
    ],
)
def test_ends_without_a_known_text_are_told_by_their_code(log: str, code: int, kind: FailureKind, words: str) -> None:
    failure = ENGINE.explain(JOB, Ended(code), tail(log))
    assert failure.kind is kind
    assert words in failure.cause


def test_a_hang_is_a_timeout() -> None:
    failure = ENGINE.explain(JOB, None, tail("ready")[:20])
    assert failure.kind is FailureKind.timeout


@pytest.mark.parametrize("log", ["ready", "older"])
def test_the_phases_of_a_load_are_read_from_new_and_older_builds(log: str) -> None:
    facts = [fact for line in tail(log) if (fact := ENGINE.read(line))]
    assert list(dict.fromkeys(fact.phase for fact in facts)) == ["loading weights", "allocating cache", "warming up"]
    first_near = next(index for index, fact in enumerate(facts) if fact.near)
    assert {fact.phase for fact in facts[:first_near]} == {"loading weights", "allocating cache"}
    assert {fact.port for fact in facts if fact.port} == {18085 if log == "ready" else 8085}


def test_lines_for_a_parent_router_have_a_true_percent() -> None:
    state = 'cmd_child_to_router:state:{"state":"loading","payload":{"stages":["text_model"],"current":"text_model","value":0.53}}'
    fact = ENGINE.read(state)
    assert fact is not None
    assert (fact.phase, fact.percent, fact.near) == ("loading weights", 53.0, False)
    ready = ENGINE.read('cmd_child_to_router:state:{"state":"ready","payload":{}}')
    assert ready is not None
    assert ready.near
    for broken in ("{", "[]", "null", '{"state":"loading","payload":{"value":7}}', '{"state":"loading"}'):
        assert ENGINE.read("cmd_child_to_router:state:" + broken) is None


@pytest.mark.parametrize(
    ("line", "works"),
    [
        (
            "0.12.735.485 I slot print_timing: id  0 | task 0 | prompt processing, n_tokens =   2048, progress = 0.17, t = 12.53 s",
            True,
        ),
        (
            "slot update_slots: id  3 | task 0 | prompt processing progress, n_past = 517, n_tokens = 512, progress = 0.335958",
            True,
        ),
        ("0.01.190.221 I srv  server_strea: conv_id= (empty=1)", False),
        ("slot launch_slot_: id  0 | task 0 | processing task, is_child = 0", False),
        ("slot update_slots: id  0 | task 0 | new prompt, n_ctx_slot = 65024, n_keep = 0, task.n_tokens = 33", False),
    ],
)
def test_each_batch_of_a_prompt_shows_that_it_works(line: str, works: bool) -> None:
    """And what a request prints when it merely comes does not: it comes to a hanging engine too."""
    fact = ENGINE.read(line)
    assert (fact is not None and fact.works) is works


@given(st.text(max_size=80))
def test_no_line_makes_the_reader_raise(line: str) -> None:
    ENGINE.read(line)
    ENGINE.read("cmd_child_to_router:state:" + line)


# -- the steps


def verdict(step: int, answer: Answer, job: Job = JOB) -> tuple[Verdict, str]:
    judged = ENGINE.steps(job)[step].judge(answer)
    return judged.verdict, judged.failure.cause if judged.failure else ""


READY, IDENTITY, PROOF = 0, 1, 2


def test_health_is_judged_by_its_status() -> None:
    for status, expected in ((0, Verdict.wait), (503, Verdict.wait), (200, Verdict.yes), (404, Verdict.no)):
        assert verdict(READY, Answer(status, body=b"whatever"))[0] is expected


def test_the_steps_use_the_key_but_health_needs_none() -> None:
    ready, identity, proof = ENGINE.steps(JOB)
    assert ready.question.headers == ()
    assert ("Authorization", "Bearer k1") in identity.question.headers
    assert ("Authorization", "Bearer k1") in proof.question.headers
    assert ready.attempts == 0
    assert identity.attempts > 0


@pytest.mark.parametrize(
    ("body", "expected", "words"),
    [
        (b'{"model_alias":"alpha","default_generation_settings":{"n_ctx":8192}}', Verdict.yes, ""),
        (b'{"model_path":"/models/alpha.gguf","default_generation_settings":{"n_ctx":8192}}', Verdict.yes, ""),
        (b'{"data":[{"id":"a","aliases":["a","alpha"]}]}', Verdict.yes, ""),
        (b'{"model_alias":"beta"}', Verdict.no, "it serves 'beta'"),
        (b'{"data":[{"id":"beta"}]}', Verdict.no, "it serves 'beta'"),
        (b'{"role":"router","model_alias":"alpha"}', Verdict.no, "router mode"),
        (
            b'{"model_alias":"alpha","default_generation_settings":{"n_ctx":4096}}',
            Verdict.no,
            "4096 tokens instead of 8192",
        ),
        (b"nonsense", Verdict.no, "answers 200"),
        (b"[]", Verdict.no, "answers 200"),
        (b"{}", Verdict.yes, ""),
    ],
)
def test_identity_is_read_from_props_and_from_the_list(body: bytes, expected: Verdict, words: str) -> None:
    found, cause = verdict(IDENTITY, Answer(200, body=body))
    assert found is expected
    assert words in cause


def test_where_props_is_missing_the_list_of_models_is_asked() -> None:
    judged = ENGINE.steps(JOB)[IDENTITY].judge(Answer(404))
    assert judged.verdict is Verdict.wait
    assert judged.instead is not None
    assert judged.instead.path == "/v1/models"
    assert judged.instead.headers == (("Authorization", "Bearer k1"),)


def test_a_context_of_the_options_is_not_compared() -> None:
    small = Answer(200, body=b'{"model_alias":"alpha","default_generation_settings":{"n_ctx":100}}')
    assert verdict(IDENTITY, small, replace(JOB, options={"c": 100}))[0] is Verdict.yes


@given(st.integers(0, 599), st.binary(max_size=60))
def test_no_answer_makes_a_judge_raise(status: int, body: bytes) -> None:
    for step in ENGINE.steps(JOB):
        step.judge(Answer(status, body=body))


@pytest.mark.parametrize(
    ("options", "path"),
    [({}, "/v1/chat/completions"), ({"embedding": True}, "/v1/embeddings"), ({"--rerank": True}, "/v1/rerank")],
)
def test_the_proof_fits_the_model(options: dict[str, object], path: str) -> None:
    assert ENGINE.steps(replace(JOB, options=options))[PROOF].question.path == path


def test_whole_answers_are_asked_for_as_streams_so_that_they_can_be_cancelled() -> None:
    dialect = ENGINE.dialect(JOB)
    assert dialect.stream_only == {"/v1/chat/completions", "/v1/completions"}
    assert dialect.headers == (("Authorization", "Bearer k1"),)
    assert dialect.model_name is None
    assert dialect.serves == SERVES
    assert 2 <= ENGINE.farewell(JOB).grace_s <= 5


def test_the_watch_asks_what_does_not_generate_or_wake() -> None:
    step = ENGINE.watch(JOB)
    assert step is not None
    assert step.question.path == "/health"
