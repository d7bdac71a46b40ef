"""The GPU trial: stages that each stand alone, finish within four minutes and run at small scale on the CPU.

python -m benchmarks.gpu.stage1_torch --device cuda --out stage1.json     torch, Transformers, PEFT and our code
python -m benchmarks.gpu.stage2_deepspeed ...                             the learner as it runs
python -m benchmarks.gpu.stage3_engine ...                                vLLM and the whole main job
"""
