"""What a Hugging Face ``config.json`` and its neighbours mean: quantisation, kind and context.

Field names follow transformers' configurations; the context follows what vLLM and SGLang derive from them.
The shape of the cache is ``hf_shape``'s; nothing here reads files.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from llm_router.formats.document import Document
from llm_router.formats.words import Format, Kind

#: ``quant_method`` as the quantisers write it, small and with dashes.
METHODS: Final = {
    "auto-awq": Format.awq,
    "awq": Format.awq,
    "awq-marlin": Format.awq,
    "auto-gptq": Format.gptq,
    "gptq": Format.gptq,
    "gptq-marlin": Format.gptq,
    "gptqmodel": Format.gptq,
    "compressed-tensors": Format.compressed_tensors,
    "fbgemm-fp8": Format.fp8,
    "fp8": Format.fp8,
    "mxfp4": Format.mxfp4,
    "modelopt": Format.modelopt,
    "modelopt-fp4": Format.modelopt,
    "nvfp4": Format.modelopt,
    "quark": Format.quark,
    "auto-round": Format.auto_round,
    "intel/auto-round": Format.auto_round,
    "torchao": Format.torchao,
    "bitsandbytes": Format.bitsandbytes,
    "exl2": Format.exl2,
    "exl3": Format.exl3,
}
#: The width of formats that have only one.
FIXED_BITS: Final = {Format.fp8: 8.0, Format.mxfp4: 4.25}
DTYPE_BITS: Final = {"bfloat16": 16.0, "float16": 16.0, "half": 16.0, "float32": 32.0, "float": 32.0}
#: Below these names multimodal configurations keep their language model's.
TEXT_SECTIONS: Final = ("text_config", "llm_config", "language_config", "thinker_config")
_MAX_NESTING: Final = 4


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How the weights are packed. ``method`` is the word in the file, ``bits`` the width of most weights."""

    format: Format
    method: str = ""
    bits: float | None = None


def text_section(config: Document) -> Document:
    """The part that describes the language model: a nested one, or the whole."""
    # Qwen's omni models nest twice: ``thinker_config.text_config``.
    for _ in range(_MAX_NESTING):
        inner = next((config.inner(name) for name in TEXT_SECTIONS if config.has(name)), None)
        if inner is None:
            break
        config = inner
    return config


def quantisation(config: Document, beside: Document | None = None) -> Quantisation:
    """How the weights are packed. ``beside`` is the older separate file of AWQ, GPTQ or ModelOpt, if there is one."""
    section = _quantisation_section(config, beside)
    if section is None:
        return Quantisation(Format.none, "", DTYPE_BITS.get(text_section(config).text("dtype", "torch_dtype")))
    method = section.text("quant_method", "quant_algo", "quantization").lower().replace("_", "-")
    if not method and config.has("quantization"):
        # MLX writes group size and bits without a method.
        return Quantisation(Format.mlx, "mlx", section.number("bits"))
    if not method:
        method = _unnamed(section)
    format_ = METHODS.get(method, Format.other if method else Format.unknown)
    return Quantisation(format_, method, FIXED_BITS.get(format_) or _bits(section))


def _quantisation_section(config: Document, beside: Document | None) -> Document | None:
    for place in (config, text_section(config)):
        for name in ("quantization_config", "compression_config"):
            if place.has(name):
                return place.inner(name)
    if config.has("quantization"):
        return config.inner("quantization")
    if beside is not None:
        # ``hf_quant_config.json`` keeps its words one level lower.
        return (
            Document({"quant_method": "modelopt"} | beside.inner("quantization").fields)
            if beside.has("producer")
            else beside
        )
    return None


def _unnamed(section: Document) -> str:
    """The method of a section without its name: AutoAWQ's and AutoGPTQ's own files, early bitsandbytes."""
    if section.has("load_in_4bit") or section.has("load_in_8bit"):
        return "bitsandbytes"
    if section.has("w_bit") or section.has("zero_point"):
        return "awq"
    return "gptq" if section.has("desc_act") and section.has("bits") else ""


def _bits(section: Document) -> float | None:
    plain = section.number("bits") or section.number("w_bit") or section.number("weight_bits")
    if plain:
        return plain
    if section.flag("load_in_4bit"):
        return 4.0
    if section.flag("load_in_8bit"):
        return 8.0
    groups = [group.inner("weights").number("num_bits") for group in section.inner("config_groups").inners()]
    widths = [width for width in groups if width]
    if widths:
        return min(widths)
    algorithm = section.text("quant_algo", "quantization").upper()
    return 4.0 if "FP4" in algorithm or "W4" in algorithm else 8.0 if "FP8" in algorithm else None


_CONTEXT_FIELDS: Final = (
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "max_seq_length",
    "seq_length",
    "n_positions",
    "n_ctx",
    "max_target_positions",
    "model_max_length",
)
#: Kinds of scaling whose result already stands in ``max_position_embeddings``.
_ALREADY_SCALED: Final = frozenset({"", "default", "llama3", "longrope", "mrope", "proportional", "su"})


def context(config: Document) -> int | None:
    """The longest context in tokens, with the scaling that the file switches on; ``None`` if it is not said."""
    section = text_section(config)
    length = section.whole(*_CONTEXT_FIELDS)
    if not length:
        return None
    if section.text("model_type") in ("roberta", "xlm-roberta", "camembert"):
        # Their positions begin at 2.
        return max(1, length - 2)
    scaling = section.inner("rope_scaling" if section.has("rope_scaling") else "rope_parameters")
    if scaling.has("full_attention"):
        scaling = scaling.inner("full_attention")
    kind, factor = scaling.text("rope_type", "type"), scaling.number("factor") or 1.0
    if kind in _ALREADY_SCALED or section.text("model_type").startswith("gemma3"):
        return length
    original = scaling.whole("original_max_position_embeddings")
    if kind == "yarn" and original:
        return max(length, int(original * min(factor, 4096.0)))
    return int(length * min(factor, 4096.0))


_AUDIO = re.compile(r"Whisper|Audio|Voxtral|Speech|ASR|TTS|CTC|Wav2Vec|Parler|Musicgen|Bark|Dia(?=For)")
_VISION = re.compile(r"VL(?![a-z])|Vision|Llava|Vila|ImageText|Multimodal|Idefics|Fuyu|PaliGemma|InternVL|Omni")
_EMBEDDERS = re.compile(r"(Model|ForMaskedLM|ForTextEncoding|ForRetrieval|Encoder|EncoderModel)\Z")
#: Models that speak although their name ends like an encoder's.
_SPEAKERS = re.compile(r"Chat|LMHead|DoubleHeads")
_CLASSIFIERS = re.compile(r"For(Token|Image|Audio)Classification|ForQuestionAnswering|ForRewardModel|RewardModel")
_VISION_SECTIONS: Final = ("vision_config", "vision_tower", "mm_vision_tower", "visual", "vit_config", "img_processor")
_SENTENCE_FILES: Final = ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json")
_TEMPLATE_FILES: Final = ("chat_template.jinja", "chat_template.json")


def kind(config: Document, files: Collection[str], tokenizer: Document, name: str = "") -> Kind:
    """What the model is for. ``files`` are the folder's, ``tokenizer`` is ``tokenizer_config.json``.

    ``name`` decides only where nothing else does: rerankers and embedders that are plain language models.
    """
    architectures = config.texts("architectures")
    architecture = architectures[0] if architectures else ""
    if architecture.endswith("ForSequenceClassification"):
        return Kind.rerank if _labels(config) == 1 or "rerank" in name.lower() else Kind.classify
    if _CLASSIFIERS.search(architecture):
        return Kind.classify
    if "rerank" in name.lower():
        return Kind.rerank
    if any(file in files for file in _SENTENCE_FILES) or _only_encodes(config, architecture):
        return Kind.embedding
    if _VISION.search(architecture) or any(config.has(section) for section in _VISION_SECTIONS):
        return Kind.vision
    if _AUDIO.search(architecture) or config.has("audio_config"):
        return Kind.audio
    if "embed" in name.lower():
        return Kind.embedding
    templated = tokenizer.has("chat_template") or any(file in files for file in _TEMPLATE_FILES)
    return Kind.chat if templated else Kind.base


def _only_encodes(config: Document, architecture: str) -> bool:
    named = _EMBEDDERS.search(architecture) and not _SPEAKERS.search(architecture)
    return bool(named) and not config.has("audio_config")


def _labels(config: Document) -> int:
    """How many classes a classifier has; transformers' default is two."""
    if config.has("id2label"):
        return len(config.inner("id2label").fields)
    return config.whole("num_labels") or 2
