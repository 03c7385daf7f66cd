"""EMULATED ais_bench 0.0.2: `python -m ais_bench --model m.om …`."""
