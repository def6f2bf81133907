"""The adapter of SGLang: command lines by installed flags, keys in a file, its log and the causes of its failures."""

import json
from dataclasses import replace

import pytest

from fakes.golden import causes, log_lines
from llm_router.core.words import DeviceId, FailureKind
from llm_router.engines.engine import Answer, Check, Ended, Job, Need, Verdict
from llm_router.engines.keys import admin_key
from llm_router.engines.sglang import CAUSES, SGLang

ENGINE = SGLang()
PROGRAM = ("/opt/sglang/venv/bin/sglang", "serve")
FLAGS = frozenset(
    [
        "--model-path",
        "--served-model-name",
        "--host",
        "--port",
        "--tp-size",
        "--pp-size",
        "--dp-size",
        "--context-length",
        "--max-running-requests",
        "--sleep-on-idle",
        "--config",
        "--api-key",
        "--admin-api-key",
        "--mem-fraction-static",
        "--kv-cache-dtype",
        "--lora-paths",
        "--enable-memory-saver",
        "--enable-weights-cpu-backup",
        "--chat-template",
        "--reasoning-parser",
    ]
)
JOB = Job(
    "qwen", PROGRAM, 30000, path="/models/Qwen-AWQ", context=24576, parallel=8, devices=(0, 2), directory="/run/qwen-1",
    key="k1", flags=FLAGS, device_ids=(DeviceId("GPU-a"), DeviceId("GPU-c")),
)  # fmt: skip


def argv(job: Job) -> str:
    return " ".join(ENGINE.launch(job).argv)


def test_what_the_configuration_says_becomes_flags() -> None:
    launch = ENGINE.launch(JOB)
    assert " ".join(launch.argv) == (
        "/opt/sglang/venv/bin/sglang serve --model-path /models/Qwen-AWQ --served-model-name qwen --host 127.0.0.1 "
        "--port 30000 --tp-size 2 --context-length 24576 --max-running-requests 8 --sleep-on-idle "
        "--config /run/qwen-1/sglang.yml"
    )
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert launch.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert launch.env["PYTHONUNBUFFERED"] == "1"
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert launch.cwd is None


def test_keys_are_in_a_file_of_ours_and_not_in_the_process_list() -> None:
    launch = ENGINE.launch(JOB)
    (file,) = launch.files
    assert file.secret
    assert file.path == "/run/qwen-1/sglang.yml"
    assert file.content.decode() == f'api-key: "k1"\nadmin-api-key: "{admin_key("k1")}"\n'
    assert not any("k1" in word.split("/")[-1] for word in launch.argv)
    # It prints them in its log.
    assert set(launch.secrets) == {"k1", admin_key("k1")}


def test_an_old_version_without_a_file_for_flags_gets_the_key_as_a_flag() -> None:
    old = FLAGS - {"--config", "--admin-api-key", "--sleep-on-idle"}
    launch = ENGINE.launch(replace(JOB, flags=old))
    assert launch.argv[-2:] == ("--api-key", "k1")
    assert launch.files == ()
    assert "--sleep-on-idle" not in launch.argv
    assert dict(ENGINE.farewell(replace(JOB, flags=old)).first[0].headers)["Authorization"] == "Bearer k1"


def test_without_a_key_nothing_is_said_of_keys() -> None:
    launch = ENGINE.launch(replace(JOB, key=None))
    assert launch.files == ()
    assert launch.secrets == ()
    assert "--config" not in launch.argv


def test_several_tokenizers_go_without_keys() -> None:
    job = replace(JOB, flags=FLAGS | {"--tokenizer-worker-num"}, options={"tokenizer-worker-num": 4})
    assert ENGINE.launch(job).files == ()
    assert "--config" not in ENGINE.launch(job).argv


def test_options_go_under_their_own_names_and_win() -> None:
    options = {
        "mem_fraction_static": 0.8, "kv-cache-dtype": "fp8_e5m2", "--context-length": 100, "sleep-on-idle": False,
        "lora-paths": ["a=/l/a", "b=/l/b"], "enable-memory-saver": True, "chat-template": None,
    }  # fmt: skip
    words = argv(replace(JOB, options=options, key=None))
    assert words.endswith(
        "--tp-size 2 --max-running-requests 8 --mem-fraction-static 0.8 --kv-cache-dtype fp8_e5m2 --context-length 100 "
        "--lora-paths a=/l/a b=/l/b --enable-memory-saver"
    )


def test_what_the_installed_version_does_not_list_is_named() -> None:
    with pytest.raises(ValueError, match=r"cannot pass the option 'quantization': .* does not list --quantization"):
        ENGINE.launch(replace(JOB, options={"quantization": "awq"}))
    with pytest.raises(ValueError, match="cannot pass --context-length"):
        ENGINE.launch(replace(JOB, flags=FLAGS - {"--context-length"}))


@pytest.mark.parametrize("name", ["port", "--host", "served_model_name", "api-key", "model", "config"])
def test_what_the_router_sets_cannot_be_an_option(name: str) -> None:
    with pytest.raises(ValueError, match="the router sets it; use"):
        ENGINE.launch(replace(JOB, options={name: "x"}))


def test_devices_are_divided_among_the_splits() -> None:
    assert "--tp-size 2 " in argv(replace(JOB, devices=(0, 1, 2, 3), options={"pp-size": 2}))
    assert "--tp-size" not in argv(replace(JOB, devices=(0, 1), options={"dp_size": 2}))
    assert "--tp-size 4 " in argv(replace(JOB, devices=(), options={"tp": 4}))
    assert "--tp-size" not in argv(replace(JOB, devices=()))
    shared = {"dp-size": 2, "enable-dp-attention": True}
    assert "--tp-size 2 " in argv(replace(JOB, options=shared, flags=FLAGS | {"--enable-dp-attention"}))
    with pytest.raises(
        ValueError, match="cannot split qwen over 3 devices: tensor split 1 times the other splits 2 is 2"
    ):
        ENGINE.launch(replace(JOB, devices=(0, 1, 2), options={"pp-size": 2}))
    with pytest.raises(ValueError, match="cannot use tp-size: 'two' is not a whole number"):
        ENGINE.launch(replace(JOB, options={"tp-size": "two"}))


def test_the_command_is_completed() -> None:
    assert ENGINE.launch(replace(JOB, command=())).argv[:2] == ("sglang", "serve")
    assert ENGINE.launch(replace(JOB, command=("/x/bin/sglang",))).argv[:2] == ("/x/bin/sglang", "serve")
    module = ("/x/bin/python", "-m", "sglang.launch_server")
    assert ENGINE.launch(replace(JOB, command=module)).argv[:4] == (*module, "--model-path")
    assert ENGINE.help_argv(JOB) == (*PROGRAM, "--help")


def test_a_relative_path_is_below_the_folder_of_models() -> None:
    assert "--model-path /shelf/Qwen-AWQ " in argv(replace(JOB, path="Qwen-AWQ", model_dir="/shelf"))
    hub = replace(JOB, path="Qwen/Qwen3-8B-AWQ")
    assert "HF_HUB_OFFLINE" not in ENGINE.launch(hub).env
    with pytest.raises(ValueError, match="it has no path"):
        ENGINE.launch(replace(JOB, path=""))


def test_what_is_checked_before_anybody_is_stopped() -> None:
    job = replace(JOB, options={"chat-template": "/t/chatml.jinja"})
    assert ENGINE.checks(job) == (
        Check(Need.program, PROGRAM[0]),
        Check(Need.directory, "/models/Qwen-AWQ"),
        Check(Need.model_header, "/models/Qwen-AWQ/config.json"),
        Check(Need.file, "/t/chatml.jinja"),
    )
    assert ENGINE.checks(replace(JOB, path="Qwen/Qwen3-8B-AWQ")) == (Check(Need.program, PROGRAM[0]),)
    assert ENGINE.checks(replace(job, options={"chat-template": "chatml"}))[-1].need is Need.model_header


def config(**fields: object) -> bytes:
    return json.dumps({"architectures": ["LlamaForCausalLM"], "num_attention_heads": 32, "num_key_value_heads": 8,
                       "num_hidden_layers": 4, "hidden_size": 4096, **fields}).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"quantization_config": {"quant_method": "exl3"}}, FailureKind.unsupported, "use tabbyapi"),
        ({"quantization_config": {"quant_method": "exl2"}}, FailureKind.unsupported, "use tabbyapi-exl2"),
        ({"num_attention_heads": 33}, FailureKind.bad_argument, "cannot divide 33 attention heads by 2 devices"),
    ],
)
def test_what_it_cannot_serve_is_known_from_config_json(
    fields: dict[str, object], kind: FailureKind, words: str
) -> None:
    head = config(**fields)
    failure = ENGINE.judge_file(JOB, "/models/Qwen-AWQ/config.json", head, len(head))
    assert failure is not None
    assert failure.kind is kind
    assert failure.cause.startswith("cannot ")
    assert words in failure.cause


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8", "compressed-tensors", "something-new", None])
def test_what_it_may_serve_passes(method: str | None) -> None:
    head = config(**({"quantization_config": {"quant_method": method}} if method else {}))
    assert ENGINE.judge_file(JOB, "/m/config.json", head, len(head)) is None
    # Wrong settings are told by the launch.
    assert ENGINE.judge_file(replace(JOB, options={"tp": 0}), "/m/config.json", head, len(head)) is None


@pytest.mark.parametrize("head", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 5000])
def test_a_damaged_config_json_is_a_bad_file(head: bytes) -> None:
    failure = ENGINE.judge_file(JOB, "/m/config.json", head, len(head))
    assert failure is not None
    assert failure.kind is FailureKind.bad_file


def test_progress_follows_the_real_log_of_a_start() -> None:
    """Recorded from 0.5.23 on a processor."""
    facts = [fact for line in log_lines("sglang", "ready.log") if (fact := ENGINE.read(line))]
    assert all(fact.failure is None for fact in facts)
    percents = [fact.percent for fact in facts if fact.percent is not None]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    phases = list(dict.fromkeys(fact.phase for fact in facts if fact.phase))
    assert phases == ["starting", "loading weights", "allocating cache", "warming up"]
    assert [fact.port for fact in facts if fact.port] == [18240]


@pytest.mark.parametrize(
    ("line", "phase", "percent", "near"),
    [
        ("[2026-11-20 10:00:00 TP0] Init parallel ends. elapsed=0.52 s", "starting", 2.0, False),
        ("[2026-11-20 10:00:00 TP0] Load weight begin. avail mem=78.58 GB", "loading weights", 3.0, False),
        ("Multi-thread loading shards:  43% Completed | 3/7 [00:02<00:03]", "loading weights", 31.8, False),
        ("Loading safetensors checkpoint shards: 100% Completed | 7/7 [00:05]", "loading weights", 70.0, False),
        ("[2026-11-20 10:00:05 TP0] Load weight end. elapsed=5.1 s, type=Qwen", "allocating cache", 70.0, False),
        (
            "[2026-11-20 10:00:05] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 9",
            "allocating cache",
            75.0,
            False,
        ),
        ("[t] Post-capture KV sizing: KV cache allocated. #tokens: 9", "allocating cache", 75.0, False),
        ("[t TP0] Capture target decode CUDA graph begin. avail mem=1 GB", "capturing graphs", 76.0, False),
        ("[t TP0] Capture cuda graph begin. This can take up to several minutes.", "capturing graphs", 76.0, False),
        (
            "Capturing batches (bs=4 avail_mem=19.70 GB):  50%|█████     | 2/4 [00:01<00:01]",
            "capturing graphs",
            85.5,
            False,
        ),
        ("[t TP0] Capture target decode CUDA graph end. elapsed=2.0 s", "capturing graphs", 95.0, False),
        ("[t TP0] max_total_num_tokens=160000, chunked_prefill_size=8192", "warming up", 96.0, True),
        ("[t] INFO:     Application startup complete.", "warming up", 97.0, True),
        ("[t] The server is fired up and ready to roll!", "warming up", 100.0, True),
    ],
)
def test_each_line_of_a_load_has_its_phase(line: str, phase: str, percent: float, near: bool) -> None:
    fact = ENGINE.read(line)
    assert fact is not None
    assert (fact.phase, fact.percent, fact.near) == (phase, percent, near)


@pytest.mark.parametrize("rank", ["TP1", "TP11", "PP1 TP0", "DP2 TP0", "TP3 EP3"])
def test_other_ranks_say_the_same_and_do_not_count(rank: str) -> None:
    assert ENGINE.read(f"[2026-11-20 10:00:00 {rank}] Load weight begin. avail mem=78.58 GB") is None


@pytest.mark.parametrize(
    ("line", "works"),
    [
        (
            "[2026-11-20 11:19:23] Prefill batch, #new-seq: 1, #new-token: 8192, #cached-token: 0, token usage: 0.00",
            True,
        ),
        ("[2026-11-20 11:19:23 TP0] Prefill batch. #new-seq: 1, #new-token: 8192, #cached-token: 0", True),
        ("[2026-11-20 11:19:23 DP1 TP0] Decode batch, #running-req: 1, #token: 40, gen throughput (token/s): 9", True),
        ('[2026-11-20 11:19:23] INFO:     127.0.0.1:1 - "POST /v1/chat/completions HTTP/1.1" 200 OK', False),
    ],
)
def test_each_batch_shows_that_it_works(line: str, works: bool) -> None:
    fact = ENGINE.read(line)
    assert (fact is not None and fact.works) is works


def test_a_line_that_says_nothing() -> None:
    assert ENGINE.read("[2026-11-20 11:19:21] Cannot detect CUDA architecture.") is None


def test_a_busy_port_fails_the_start_although_it_lives_on() -> None:
    line = "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): address already in use"
    fact = ENGINE.read(f"[t] {line}")
    assert fact is not None
    assert fact.failure is not None
    assert fact.failure.kind is FailureKind.port_in_use


OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.11 GiB of which 1.1 GiB is free."
)


@pytest.mark.parametrize(("line", "kind", "words"), causes("sglang"))
def test_each_known_text_names_its_cause(line: str, kind: FailureKind, words: str) -> None:
    tail = ["[t] server_args={...}", f"[2026-11-20 10:00:09 TP0] {line}", "[t] Received sigquit from a child process."]
    failure = ENGINE.explain(JOB, Ended(-9), tail)
    assert failure.kind is kind
    assert words in failure.cause
    assert failure.cause.startswith("cannot ")
    assert "{" not in failure.cause
    assert failure.tail == tuple(tail)


def test_the_device_of_an_out_of_memory_is_the_machines() -> None:
    assert ENGINE.explain(JOB, Ended(-9), [f"torch.OutOfMemoryError: {OOM}"]).device == "GPU-c"
    assert ENGINE.explain(replace(JOB, device_ids=()), Ended(-9), [OOM]).device is None


def test_no_cause_is_made_up_from_what_every_start_prints() -> None:
    """Models that miss a package are skipped aloud in each start."""
    failure = ENGINE.explain(JOB, Ended(-9), log_lines("sglang", "ready.log"))
    assert failure.kind is FailureKind.crashed
    assert "killed by SIGKILL" in failure.cause


def test_the_last_exception_is_told_when_nothing_is_known() -> None:
    tail = [
        "Traceback (most recent call last):",
        "RuntimeError: something odd",
        "[t] Received sigquit from a child process.",
    ]
    assert ENGINE.explain(JOB, Ended(1), tail).cause == (
        "cannot start qwen: its engine ended by itself with exit code 1; its log says: RuntimeError: something odd"
    )
    assert ENGINE.explain(JOB, None, []).kind is FailureKind.timeout
    assert ENGINE.explain(JOB, Ended(0), []).cause.endswith("exit code 0; its log is empty")


def test_every_sentence_of_the_table_can_be_filled() -> None:
    assert all(cause.sentence.startswith("cannot ") for cause in CAUSES)


def test_ready_is_not_health_except_in_old_versions() -> None:
    ready = ENGINE.steps(JOB)[0]
    assert ready.question.path == "/ready"
    assert ready.judge(Answer(0)).verdict is Verdict.wait
    assert ready.judge(Answer(503)).verdict is Verdict.wait
    assert ready.judge(Answer(200)).verdict is Verdict.yes
    old = ready.judge(Answer(404)).instead
    assert old is not None
    assert old.path == "/health"
    assert ENGINE.watch(JOB) is not None


def test_the_identity_is_the_served_name_of_an_sglang() -> None:
    judge = ENGINE.steps(JOB)[1].judge

    def list_of(**card: object) -> Answer:
        return Answer(200, body=json.dumps({"data": [card]}).encode())

    assert judge(list_of(id="qwen", owned_by="sglang")).verdict is Verdict.yes
    for wrong in (
        list_of(id="other", owned_by="sglang"),
        list_of(id="qwen", owned_by="vllm"),
        list_of(id=["x"], owned_by={}),
    ):
        judged = judge(wrong)
        assert judged.verdict is Verdict.no
        assert judged.failure is not None
        assert judged.failure.kind is FailureKind.wrong_identity
    refused = judge(Answer(401)).failure
    assert refused is not None
    assert refused.kind is FailureKind.key


def test_the_proof_is_a_token_or_a_vector() -> None:
    *_, chat = ENGINE.steps(JOB)
    assert chat.question.path == "/v1/chat/completions"
    text = '{"object":"error","message":"tokenizer.chat_template is not set: no chat template","code":400}'
    instead = chat.judge(Answer(400, body=text.encode())).instead
    assert instead is not None
    assert instead.path == "/v1/completions"
    *_, vector = ENGINE.steps(replace(JOB, options={"is_embedding": True}))
    assert vector.question.path == "/v1/embeddings"


def test_farewell_aborts_first_since_it_would_wait_for_ever() -> None:
    farewell = ENGINE.farewell(JOB)
    assert farewell.grace_s >= 6
    (abort,) = farewell.first
    assert (abort.method, abort.path) == ("POST", "/abort_request")
    assert dict(abort.headers)["Authorization"] == f"Bearer {admin_key('k1')}"


def test_the_dialect_never_carries_the_key_of_an_administrator() -> None:
    dialect = ENGINE.dialect(JOB)
    assert dialect.model_name == "qwen"
    assert dialect.headers == (("Authorization", "Bearer k1"),)
    assert dialect.ask_usage
    assert dialect.says_done


def test_it_is_parked_only_when_its_memory_can_be_freed_and_its_weights_kept() -> None:
    assert ENGINE.parking(JOB) is None
    assert ENGINE.parking(replace(JOB, options={"enable-memory-saver": True})) is None
    parking = ENGINE.parking(replace(JOB, options={"enable-memory-saver": True, "enable-weights-cpu-backup": True}))
    assert parking is not None
    assert [step.question.path for step in parking.sleep] == ["/v1/loads", "/release_memory_occupation"]
    # A second resume of what is awake kills the server.
    assert parking.wake[0].attempts == 1
    assert parking.wake[0].judge(Answer(200)).verdict is Verdict.yes
    assert parking.wake[0].judge(Answer(500)).verdict is Verdict.wait


def test_what_is_to_be_parked_is_started_for_it() -> None:
    job = replace(JOB, park=True, flags=None)
    words = ENGINE.launch(job).argv
    assert {"--enable-memory-saver", "--enable-weights-cpu-backup"} <= set(words)
    assert ENGINE.parking(job) is not None
    # Who says no to one of them in args has the last word.
    assert ENGINE.parking(replace(job, options={"enable-weights-cpu-backup": False})) is None


def test_it_sleeps_only_when_nothing_runs() -> None:
    parking = ENGINE.parking(replace(JOB, park=True))
    assert parking is not None
    idle = parking.sleep[0]

    def told(**load: int) -> Verdict:
        return idle.judge(Answer(200, body=json.dumps({"loads": [{"num_running_reqs": 0, **load}]}).encode())).verdict

    assert told() is Verdict.yes
    assert told(num_running_reqs=1) is Verdict.wait
    assert told(num_waiting_reqs=2) is Verdict.wait
    assert idle.judge(Answer(0)).verdict is Verdict.wait
    # Older versions cannot be asked.
    assert idle.judge(Answer(404)).verdict is Verdict.yes


def test_weights_stay_on_the_devices_unless_it_is_told_otherwise() -> None:
    assert ENGINE.all_on_devices(JOB)
    assert not ENGINE.all_on_devices(replace(JOB, options={"cpu-offload-gb": 10}))
