"""What config.json and its neighbours say of quantisation, kind and context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.build import CONFIGS
from llm_router.formats.document import Document
from llm_router.formats.hf_config import Quantisation, context, kind, quantisation, text_section
from llm_router.formats.hf_shape import shape
from llm_router.formats.words import Format, Kind, Layers, Shape


def quantised(**section: object) -> Document:
    return Document({"quantization_config": section})


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (quantised(quant_method="awq", bits=4, zero_point=True), Quantisation(Format.awq, "awq", 4)),
        (quantised(quant_method="gptq", bits=8, desc_act=True), Quantisation(Format.gptq, "gptq", 8)),
        (quantised(quant_method="fp8"), Quantisation(Format.fp8, "fp8", 8)),
        (quantised(quant_method="fbgemm_fp8"), Quantisation(Format.fp8, "fbgemm-fp8", 8)),
        (quantised(quant_method="mxfp4"), Quantisation(Format.mxfp4, "mxfp4", 4.25)),
        (quantised(quant_method="exl2", bits=4.65, head_bits=6), Quantisation(Format.exl2, "exl2", 4.65)),
        (quantised(quant_method="EXL3", bits=3.0), Quantisation(Format.exl3, "exl3", 3)),
        (
            quantised(quant_method="bitsandbytes", load_in_4bit=True),
            Quantisation(Format.bitsandbytes, "bitsandbytes", 4),
        ),
        (quantised(load_in_8bit=True), Quantisation(Format.bitsandbytes, "bitsandbytes", 8)),
        (
            quantised(
                quant_method="compressed-tensors",
                config_groups={"a": {"weights": {"num_bits": 8}}, "b": {"weights": {"num_bits": 4}}, "c": {}},
            ),
            Quantisation(Format.compressed_tensors, "compressed-tensors", 4),
        ),
        (
            Document({"compression_config": {"quant_method": "compressed-tensors"}}),
            Quantisation(Format.compressed_tensors, "compressed-tensors"),
        ),
        (quantised(quant_method="modelopt", quant_algo="NVFP4"), Quantisation(Format.modelopt, "modelopt", 4)),
        (quantised(quant_method="modelopt", quant_algo="FP8"), Quantisation(Format.modelopt, "modelopt", 8)),
        (quantised(quant_method="aqlm"), Quantisation(Format.other, "aqlm")),
        (quantised(), Quantisation(Format.unknown)),
        (Document({"quantization_config": None}), Quantisation(Format.none)),
        (Document({"text_config": {"quantization_config": {"quant_method": "awq"}}}), Quantisation(Format.awq, "awq")),
        (Document({"quantization": {"bits": 4, "group_size": 64}}), Quantisation(Format.mlx, "mlx", 4)),
        (Document({"torch_dtype": "bfloat16"}), Quantisation(Format.none, "", 16)),
        (Document({"text_config": {"dtype": "float32"}}), Quantisation(Format.none, "", 32)),
    ],
)
def test_quantisation(config: Document, found: Quantisation) -> None:
    assert quantisation(config) == found


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ({"zero_point": True, "w_bit": 4, "version": "GEMM"}, Quantisation(Format.awq, "awq", 4)),
        ({"bits": 4, "desc_act": False, "group_size": 128}, Quantisation(Format.gptq, "gptq", 4)),
        (
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W4A16_AWQ"}},
            Quantisation(Format.modelopt, "modelopt", 4),
        ),
    ],
)
def test_quantisation_in_a_separate_file(beside: dict[str, object], found: Quantisation) -> None:
    assert quantisation(Document(), Document(beside)) == found


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("llama-3-8b", 131072), ("deepseek-v3", 163840), ("gemma-3-27b", 131072), ("gpt-oss-20b", 131072)],
)
def test_context_of_real_models(name: str, tokens: int) -> None:
    assert context(Document(CONFIGS[name])) == tokens


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, None),
        ({"max_position_embeddings": 0}, None),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta"}, 512),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}}, 16384),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"type": "longrope", "factor": 32.0}}, 4096),
        ({"rope_scaling": {"mrope_section": [16, 24, 24], "type": "mrope"}}, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 1e30}}, 4096),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}, "sliding_attention": {}}}, 8192),
        ({"thinker_config": {"text_config": {"max_position_embeddings": 777}}}, 777),
    ],
)
def test_context(fields: dict[str, object], tokens: int | None) -> None:
    given_length = bool({"rope_scaling", "rope_parameters"} & fields.keys())
    assert context(Document({"max_position_embeddings": 4096} | fields if given_length else fields)) == tokens


def test_endless_nesting_ends() -> None:
    config: dict[str, object] = {"max_position_embeddings": 1}
    for _ in range(900):
        config = {"text_config": config}
    assert context(Document(config)) is None
    assert text_section(Document(config)).has("text_config")


def architecture(name: str, **fields: object) -> Document:
    return Document({"architectures": [name]} | fields)


@pytest.mark.parametrize(
    ("config", "files", "found"),
    [
        (architecture("LlamaForCausalLM"), {"chat_template.jinja"}, Kind.chat),
        (architecture("LlamaForCausalLM"), set(), Kind.base),
        (Document(), set(), Kind.base),
        (architecture("Qwen3ForCausalLM"), {"modules.json"}, Kind.embedding),
        (architecture("BertModel"), set(), Kind.embedding),
        (architecture("XLMRobertaModel"), {"1_Pooling/config.json"}, Kind.embedding),
        (architecture("ModernBertForMaskedLM"), set(), Kind.embedding),
        (architecture("XLMRobertaForSequenceClassification", id2label={"0": "LABEL_0"}), set(), Kind.rerank),
        (architecture("BertForSequenceClassification", num_labels=1), {"modules.json"}, Kind.rerank),
        (architecture("BertForSequenceClassification"), set(), Kind.classify),
        (architecture("BertForTokenClassification"), set(), Kind.classify),
        (architecture("Qwen2ForRewardModel"), set(), Kind.classify),
        (architecture("Qwen2_5_VLForConditionalGeneration"), set(), Kind.vision),
        (architecture("Mistral3ForConditionalGeneration", vision_config={"a": 1}), set(), Kind.vision),
        (architecture("LlavaForConditionalGeneration"), set(), Kind.vision),
        (architecture("WhisperForConditionalGeneration"), set(), Kind.audio),
        (architecture("Qwen2AudioForConditionalGeneration", audio_config={}), set(), Kind.audio),
        (architecture("UltravoxModel", audio_config={"a": 1}), set(), Kind.audio),
        (architecture("InternVLChatModel", vision_config={"a": 1}), set(), Kind.vision),
        (architecture("CLIPModel", vision_config={"a": 1}), set(), Kind.embedding),
        (architecture("GPT2LMHeadModel"), set(), Kind.base),
        (architecture("ChatGLMModel"), {"chat_template.jinja"}, Kind.chat),
    ],
)
def test_kind(config: Document, files: set[str], found: Kind) -> None:
    assert kind(config, files, Document()) is found


def test_kind_by_template_and_by_name() -> None:
    plain = architecture("Qwen3ForCausalLM")
    assert kind(plain, set(), Document({"chat_template": "{{ x }}"})) is Kind.chat
    assert kind(plain, set(), Document({"chat_template": "x"}), "Qwen3-Reranker-4B") is Kind.rerank
    assert kind(plain, set(), Document({"chat_template": "x"}), "Qwen3-Embedding-4B-AWQ") is Kind.embedding


WORDS = st.sampled_from(
    [
        "quantization_config",
        "quant_method",
        "bits",
        "awq",
        "text_config",
        "architectures",
        "BertModel",
        "id2label",
        "rope_scaling",
        "type",
        "yarn",
        "factor",
        "max_position_embeddings",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_size",
        "layer_types",
        "mamba",
        "sliding_window",
        "kv_lora_rank",
        "config_groups",
        "weights",
        "num_bits",
        "full_attention_interval",
        "attn_layer_period",
        "num_kv_shared_layers",
        "global_head_dim",
        "multi_query",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 64) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=8),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.dictionaries(WORDS, JSON, max_size=12))
def test_any_configuration_is_answered(fields: dict[str, object]) -> None:
    config = Document(fields)
    assert isinstance(quantisation(config, config), Quantisation)
    assert isinstance(kind(config, set(), config), Kind)
    length = context(config)
    assert length is None or 0 < length < 1 << 62
    found = shape(config)
    assert found is None or all(isinstance(layers, Layers) for layers in found.cached)
    assert isinstance(found, Shape | None)
