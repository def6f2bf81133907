"""The adapter of vLLM: command lines by installed flags, what its health does not say, its log and its causes."""

import json
from dataclasses import replace

import pytest

from fakes.golden import causes, log_lines
from llm_router.core.words import DeviceId, FailureKind
from llm_router.engines.engine import Answer, Check, Ended, Job, Need, Verdict
from llm_router.engines.vllm import VLLM

ENGINE = VLLM()
PROGRAM = ("/opt/vllm/bin/vllm", "serve")
JOB = Job(
    "qwen", PROGRAM, 8001, path="/models/Qwen-AWQ", context=24576, parallel=8, devices=(1, 3), directory="/run/qwen-1",
    key="k1", device_ids=(DeviceId("GPU-b"), DeviceId("GPU-d")),
)  # fmt: skip
KNOWN = frozenset(
    [
        *(
            "--served-model-name",
            "--host",
            "--port",
            "--tensor-parallel-size",
            "-tp",
            "--max-model-len",
            "--max-num-seqs",
        ),
        *("--gpu-memory-utilization", "--shutdown-timeout", "--disable-access-log-for-endpoints", "--kv-cache-dtype"),
    ]
)


def argv(job: Job) -> str:
    return " ".join(ENGINE.launch(job).argv)


def test_what_the_configuration_says_becomes_flags() -> None:
    launch = ENGINE.launch(JOB)
    assert " ".join(launch.argv) == (
        "/opt/vllm/bin/vllm serve /models/Qwen-AWQ --served-model-name qwen --host 127.0.0.1 --port 8001 "
        "--tensor-parallel-size 2 --max-model-len 24576 --max-num-seqs 8 --gpu-memory-utilization 0.9"
    )
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert launch.files == ()


def test_the_key_goes_by_environment() -> None:
    launch = ENGINE.launch(JOB)
    assert launch.env["VLLM_API_KEY"] == "k1"
    assert not any("k1" in word for word in launch.argv)
    assert "k1" in launch.secrets
    assert "VLLM_API_KEY" not in ENGINE.launch(replace(JOB, key=None)).env
    # It would be the base of internal ports.
    assert "VLLM_PORT" not in launch.env


def test_comforts_are_added_only_for_a_version_that_has_them() -> None:
    assert argv(replace(JOB, flags=KNOWN)).endswith(
        "--shutdown-timeout 10 --disable-access-log-for-endpoints /health,/metrics"
    )
    assert "--shutdown-timeout" not in argv(replace(JOB, flags=KNOWN - {"--shutdown-timeout"}))
    own = replace(JOB, flags=KNOWN, options={"shutdown-timeout": 3})
    assert argv(own).count("--shutdown-timeout") == 1


def test_a_help_that_lists_groups_only_forbids_nothing() -> None:
    groups = frozenset({"--help", "--help-all"})
    assert argv(replace(JOB, flags=groups)) == argv(replace(JOB, flags=None))


def test_the_share_of_memory_is_always_said_on_a_gpu() -> None:
    assert "--gpu-memory-utilization" not in argv(replace(JOB, devices=()))
    assert "--gpu-memory-utilization" not in argv(replace(JOB, options={"kv_cache_memory_bytes": 1 << 30}))
    assert "--gpu-memory-utilization 0.45" in argv(replace(JOB, options={"gpu-memory-utilization": 0.45}))


def test_options_go_under_their_own_names_and_win() -> None:
    options = {
        "kv-cache-dtype": "fp8", "max_model_len": 100, "enable-prefix-caching": False, "speculative-config": {"model": "/d"},
        "lora-modules": ["a=/l/a", "b=/l/b"], "enable-auto-tool-choice": True, "tool-call-parser": "hermes", "-tp": 2,
    }  # fmt: skip
    words = ENGINE.launch(replace(JOB, options=options, flags=None)).argv
    assert " ".join(words).endswith(
        '--kv-cache-dtype fp8 --max-model-len 100 --no-enable-prefix-caching --speculative-config {"model": "/d"} '
        "--lora-modules a=/l/a b=/l/b --enable-auto-tool-choice --tool-call-parser hermes"
    )
    with pytest.raises(ValueError, match="the installed program does not list --quantization"):
        ENGINE.launch(replace(JOB, flags=KNOWN, options={"quantization": "awq"}))


@pytest.mark.parametrize("name", ["port", "uds", "served_model_name", "api-key", "--model", "host"])
def test_what_the_router_sets_cannot_be_an_option(name: str) -> None:
    with pytest.raises(ValueError, match="the router sets it; use"):
        ENGINE.launch(replace(JOB, options={name: "x"}))


def test_devices_are_divided_among_the_splits() -> None:
    assert "--tensor-parallel-size" not in argv(replace(JOB, options={"pipeline-parallel-size": 2}))
    assert "--tensor-parallel-size 2 " in argv(replace(JOB, devices=(0, 1, 2, 3), options={"pp": 2}))
    with pytest.raises(ValueError, match="cannot split qwen over 2 devices"):
        ENGINE.launch(replace(JOB, options={"tensor-parallel-size": 4}))


def test_the_command_is_completed_and_its_options_are_asked_for_in_its_way() -> None:
    assert ENGINE.launch(replace(JOB, command=())).argv[:2] == ("vllm", "serve")
    assert ENGINE.launch(replace(JOB, command=("/x/vllm",))).argv[:3] == ("/x/vllm", "serve", "/models/Qwen-AWQ")
    old = ("/x/python", "-m", "vllm.entrypoints.openai.api_server")
    assert ENGINE.launch(replace(JOB, command=old)).argv[:5] == (*old, "--model", "/models/Qwen-AWQ")
    # Plain --help lists groups of options only.
    assert ENGINE.help_argv(JOB) == (*PROGRAM, "--help=all")
    assert ENGINE.help_argv(replace(JOB, command=old)) == (*old, "--help")
    with pytest.raises(ValueError, match="it has no path"):
        ENGINE.launch(replace(JOB, path=""))


def test_what_is_checked_before_anybody_is_stopped() -> None:
    assert ENGINE.checks(replace(JOB, options={"chat_template": "/t/x.jinja"})) == (
        Check(Need.program, PROGRAM[0]),
        Check(Need.directory, "/models/Qwen-AWQ"),
        Check(Need.model_header, "/models/Qwen-AWQ/config.json"),
        Check(Need.file, "/t/x.jinja"),
    )
    assert Check(Need.model_header, "/m/x.gguf") in ENGINE.checks(replace(JOB, path="/m/x.gguf"))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"GGUF\x03\x00\x00\x00", "use llamacpp"),
        (b'{"quantization_config": {"quant_method": "bitsandbytes"}}', "bitsandbytes left its core"),
        (b'{"quantization_config": {"quant_method": "exl3"}}', "use tabbyapi"),
        (b'{"text_config": {"quantization_config": {"quant_method": "exl2"}}}', "use tabbyapi-exl2"),
    ],
)
def test_what_it_has_given_up_is_refused_with_who_takes_it(head: bytes, words: str) -> None:
    failure = ENGINE.judge_file(JOB, "/m/config.json", head, len(head))
    assert failure is not None
    assert failure.kind is FailureKind.unsupported
    assert words in failure.cause
    assert failure.cause.startswith("cannot load qwen: ")


def test_a_config_that_is_too_big_to_be_one() -> None:
    failure = ENGINE.judge_file(JOB, "/m/config.json", b"{", 1 << 30)
    assert failure is not None
    assert failure.kind is FailureKind.bad_file
    assert ENGINE.judge_file(replace(JOB, options={"tp": "x"}), "/m/config.json", b"{}", 2) is None


def test_progress_follows_the_real_log_of_a_start() -> None:
    """Recorded from 0.32 on a processor."""
    facts = [fact for line in log_lines("vllm", "ready.log") if (fact := ENGINE.read(line))]
    percents = [fact.percent for fact in facts if fact.percent is not None]
    assert percents == sorted(percents)
    assert percents[-1] == 99.0
    assert list(dict.fromkeys(fact.phase for fact in facts if fact.phase)) == [
        "loading weights",
        "allocating cache",
        "warming up",
    ]
    assert [fact.port for fact in facts if fact.port] == [18230]


@pytest.mark.parametrize(
    ("line", "phase", "percent", "near"),
    [
        ("(Worker_TP0 pid=9) INFO 11-20 11:20:01 [x.py:1] Starting to load model /m...", "loading weights", 3.0, False),
        ("Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01]", "loading weights", 29.0, False),
        ("Multi-thread loading shards: 100% Completed | 4/4 [00:01]", "loading weights", 55.0, False),
        ("(Worker pid=9) INFO [x] Loading weights took 0.00 seconds", "loading weights", 55.0, False),
        ("(Worker pid=9) INFO [x] Model loading took 38.5 GiB memory and 6.3 seconds", "loading weights", 55.0, False),
        ("(Worker pid=9) INFO [x] Dynamo bytecode transform time: 3.02 s", "compiling", 60.0, False),
        ("INFO [x] Compiling a graph for compile range (1, 8192) takes 4.0 s", "compiling", 62.0, False),
        ("INFO [x] Directly load the compiled graph(s) for dynamic shape", "compiling", 70.0, False),
        ("INFO [x] Available KV cache memory: 26.11 GiB", "allocating cache", 80.0, False),
        ("INFO [x] GPU KV cache size: 213,904 tokens", "allocating cache", 80.0, False),
        ("INFO [x] # GPU blocks: 1337, # CPU blocks: 0", "allocating cache", 80.0, False),
        ("Capturing CUDA graphs (decode, FULL):  40%|████      | 2/5 [00:00<00:00]", "capturing graphs", 86.0, False),
        ("INFO [x] Graph capturing finished in 3 secs, took 0.61 GiB", "capturing graphs", 95.0, False),
        ("INFO [x] init engine (profile, create kv cache, warmup model) took 2.90 s", "warming up", 96.0, True),
        ("INFO [x] Starting vLLM API server 0 on http://127.0.0.1:8001", "warming up", 98.0, True),
        ("INFO:     Application startup complete.", "warming up", 99.0, True),
    ],
)
def test_each_line_of_a_load_has_its_phase(line: str, phase: str, percent: float, near: bool) -> None:
    fact = ENGINE.read(line)
    assert fact is not None
    assert (fact.phase, fact.percent, fact.near) == (phase, percent, near)


def test_only_the_first_rank_counts() -> None:
    assert ENGINE.read("(Worker_TP1 pid=9) INFO [x] Starting to load model /m...") is None
    assert ENGINE.read("(Worker_PP1_TP0 pid=9) INFO [x] Starting to load model /m...") is None
    assert ENGINE.read("(APIServer pid=9) INFO [x] Using max model len 2048") is None


@pytest.mark.parametrize(
    ("prompt", "generation", "works"),
    [("812.4", "0.0", True), ("0.0", "31.9", True), ("0.0", "0.0", False), ("0.1", "0.0", True)],
)
def test_throughput_shows_that_it_works(prompt: str, generation: str, works: bool) -> None:
    """One that hangs goes on printing the line, with zeros."""
    fact = ENGINE.read(
        f"(APIServer pid=1) INFO [loggers.py:271] Engine 000: Avg prompt throughput: {prompt} tokens/s, "
        f"Avg generation throughput: {generation} tokens/s, Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: 1.0%"
    )
    assert (fact is not None and fact.works) is works


CORE = "(EngineCore pid=7) ERROR 11-20 11:20:06 [core.py:1584] "


@pytest.mark.parametrize(("line", "kind", "words"), causes("vllm"))
def test_each_known_text_names_its_cause(line: str, kind: FailureKind, words: str) -> None:
    tail = [
        f"{CORE}EngineCore failed to start.",
        f"{CORE}{line}",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ]
    failure = ENGINE.explain(JOB, Ended(1), tail)
    assert failure.kind is kind
    assert words in failure.cause
    assert failure.cause.startswith("cannot ")


def test_the_root_cause_is_told_and_not_that_there_is_one() -> None:
    tail = [
        f"{CORE}EngineCore failed to start.",
        f"{CORE}ValueError: something odd",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ]
    assert ENGINE.explain(JOB, Ended(1), tail).cause.endswith("its log says: ValueError: something odd")


def test_the_device_is_the_machines() -> None:
    line = "ValueError: Free memory on device cuda:1 (3.20/79.11 GiB) on startup is less than desired"
    assert ENGINE.explain(JOB, Ended(1), [line]).device == "GPU-d"


def test_steps_go_from_health_over_the_name_to_a_token() -> None:
    health, identity, proof = ENGINE.steps(JOB)
    assert (health.question.path, identity.question.path) == ("/health", "/v1/models")
    assert health.judge(Answer(200)).verdict is Verdict.yes
    assert health.judge(Answer(503)).verdict is Verdict.wait
    assert (
        proof.judge(Answer(404, body=b'{"error":{"message":"The model `qwen` does not exist."}}')).verdict is Verdict.no
    )


def test_an_engine_that_may_sleep_must_be_awake() -> None:
    job = replace(JOB, options={"enable-sleep-mode": True})
    assert ENGINE.launch(job).env["VLLM_SERVER_DEV_MODE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in ENGINE.launch(JOB).env
    awake = ENGINE.steps(job)[2]
    assert awake.question.path == "/is_sleeping"
    assert awake.judge(Answer(200, body=b'{"is_sleeping":true}')).verdict is Verdict.wait
    assert awake.judge(Answer(200, body=b'{"is_sleeping":false}')).verdict is Verdict.yes
    assert awake.judge(Answer(404)).verdict is Verdict.yes
    assert ENGINE.parking(JOB) is None
    parking = ENGINE.parking(job)
    assert parking is not None
    assert parking.sleep[0].question.path == "/sleep?level=1"
    assert [step.question.path for step in parking.wake] == ["/wake_up", "/is_sleeping", "/v1/chat/completions"]
    # Older versions answer with nothing.
    assert parking.sleep[0].judge(Answer(200)).verdict is Verdict.yes


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"runner": "pooling"}, "/v1/embeddings"),
        ({"task": "embed"}, "/v1/embeddings"),
        ({"task": "score"}, "/v1/rerank"),
        ({"runner": "pooling", "convert": "classify"}, "/v1/rerank"),
        ({}, "/v1/chat/completions"),
    ],
)
def test_the_proof_is_what_the_model_makes(options: dict[str, object], path: str) -> None:
    assert ENGINE.steps(replace(JOB, options=options))[-1].question.path == path


def test_the_rest_of_the_manners() -> None:
    assert ENGINE.farewell(JOB).first == ()
    # Longer than what a running answer may take.
    assert ENGINE.farewell(JOB).grace_s > 10
    dialect = ENGINE.dialect(JOB)
    assert dialect.model_name == "qwen"
    assert dialect.ask_usage
    watch = ENGINE.watch(JOB)
    assert watch is not None
    assert json.loads(ENGINE.steps(JOB)[-1].question.body or b"")["max_tokens"] == 1


def test_what_is_to_be_parked_is_started_for_it() -> None:
    job = replace(JOB, park=True)
    assert "--enable-sleep-mode" in ENGINE.launch(job).argv
    assert ENGINE.launch(job).env["VLLM_SERVER_DEV_MODE"] == "1"
    assert ENGINE.parking(job) is not None
    assert argv(replace(job, options={"enable-sleep-mode": True})).count("--enable-sleep-mode") == 1
    with pytest.raises(ValueError, match="cannot pass --enable-sleep-mode: the installed program does not list it"):
        ENGINE.launch(replace(job, flags=KNOWN))


def test_weights_stay_on_the_devices_unless_it_is_told_otherwise() -> None:
    assert ENGINE.all_on_devices(JOB)
    assert not ENGINE.all_on_devices(replace(JOB, options={"cpu_offload_gb": 10}))
