"""An emulated `npu-smi info`: the recorded tables of a 310P and of a 910B host."""

import os
import sys

TABLES = {
    "Ascend310P3": """\
+-------------------+-----------------+------------------------------------------------------+
| npu-smi 22.0.0                       Version:22.0.2                                        |
+-------------------+-----------------+------------------------------------------------------+
| NPU     Name      | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device    | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===================+=================+======================================================+
| 0       310P3     | OK              | 16.2         42                0    / 0              |
| 0       0         | 0000:86:00.0    | 0            994  / 21534                            |
+===================+=================+======================================================+
""",
    "Ascend910B3": """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.3.rc1                 Version: 25.3.rc1                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 90.4        32                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          41697/ 65536         |
+===========================+===============+====================================================+
""",
}

if __name__ == "__main__":
    if sys.argv[1:] != ["info"]:
        sys.exit("npu-smi: emulated for `info` only")
    soc = os.environ.get("EMULATED_SOC", "Ascend310P3")
    if soc not in TABLES:
        sys.exit(f"dcmi model initialized failed, because the device is not found. ({soc})")
    print(TABLES[soc], end="")
