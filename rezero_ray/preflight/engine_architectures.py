"""The text models of vLLM 0.30.0, by what its LoRA can do with them.

A table, so that a laptop without vLLM can check a run for a machine that has it. It was made by importing every class
of vLLM's registry and asking `supports_lora`; tests/preflight/test_engine_architectures.py compares it with the
installed vLLM.
"""

VLLM = "0.30.0"

_WITH_LORA = """
    AXK1ForCausalLM AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM BailingMoeForCausalLM
    BailingMoeV2ForCausalLM ChatGLMForConditionalGeneration ChatGLMModel Cohere2ForCausalLM
    CohereForCausalLM CwmForCausalLM DeciLMForCausalLM DeepseekForCausalLM DeepseekV2ForCausalLM
    DeepseekV32ForCausalLM DeepseekV3ForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM
    Exaone4ForCausalLM ExaoneForCausalLM ExaoneMoeForCausalLM FalconH1ForCausalLM FlexOlmoForCausalLM
    GPTBigCodeForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma4ForCausalLM GemmaForCausalLM
    Glm4ForCausalLM Glm4MoeForCausalLM Glm4MoeLiteForCausalLM GlmForCausalLM GlmMoeDsaForCausalLM
    GptOssForCausalLM GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeHybridForCausalLM
    GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM GraniteSWAForCausalLM HYV3ForCausalLM
    HYV4ForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM HyperCLOVAXForCausalLM
    IQuestCoderForCausalLM InklingForCausalLM InklingForConditionalGeneration InternLM2ForCausalLM
    InternLM3ForCausalLM Jais2ForCausalLM JambaForCausalLM K2HorizonForCausalLM LLaMAForCausalLM
    LagunaForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM Llama4ForCausalLM LlamaForCausalLM
    LongcatFlashForCausalLM LongcatFlashNgramForCausalLM MellumForCausalLM MiMoForCausalLM
    MiniCPM3ForCausalLM MiniCPMForCausalLM MiniMaxM2ForCausalLM Ministral3ForCausalLM MistralForCausalLM
    MistralLarge3ForCausalLM MixtralForCausalLM NanbeigeForCausalLM NemotronForCausalLM
    NemotronHForCausalLM NemotronHPuzzleForCausalLM OPTForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM
    OlmoForCausalLM OlmoHybridForCausalLM OlmoeForCausalLM PanguEmbeddedForCausalLM
    PanguProMoEV2ForCausalLM PanguUltraMoEForCausalLM Param2MoEForCausalLM Phi3ForCausalLM PhiForCausalLM
    PhiMoEForCausalLM Plamo3ForCausalLM Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen3ForCausalLM
    Qwen3MoeForCausalLM Qwen3NextForCausalLM Rnj1ForCausalLM SarvamMLAForCausalLM SarvamMoEForCausalLM
    SeedOssForCausalLM SmolLM3ForCausalLM SolarForCausalLM Starcoder2ForCausalLM TeleChat2ForCausalLM
    TeleChat3ForCausalLM TeleFLMForCausalLM VaultGemmaForCausalLM
"""

_WITHOUT_LORA = """
    BailingMoeV2_5ForCausalLM BailingMoeV3ForCausalLM BloomForCausalLM Cohere2MoeForCausalLM
    DbrxForCausalLM DeepseekV4ForCausalLM FalconForCausalLM FalconMambaForCausalLM GPT2LMHeadModel
    GPTJForCausalLM GPTNeoXForCausalLM Gemma3nForCausalLM HrmTextForCausalLM IQuestLoopCoderForCausalLM
    KimiLinearForCausalLM Mamba2ForCausalLM MambaForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM
    OrionForCausalLM StableLmForCausalLM Step1ForCausalLM Step3TextForCausalLM Step3p5ForCausalLM
    Zamba2ForCausalLM
"""

_NEED_TORCHVISION = """
    Glm5NextForCausalLM HCXVisionV2ForCausalLM MiniMaxM3SparseForCausalLM MuseGlimmerForCausalLM
    Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM Qwen4ExpForCausalLM
"""

WITH_LORA = frozenset(_WITH_LORA.split())
WITHOUT_LORA = frozenset(_WITHOUT_LORA.split())
NEED_TORCHVISION = frozenset(_NEED_TORCHVISION.split())
"""vLLM imports torchvision for these; requirements/ leave it out."""
