"""Stands for vLLM's server and the engine process that it starts in its own group: both sleep."""

import subprocess
import sys
import time

engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(f"engine {engine.pid}", flush=True)
time.sleep(600)
