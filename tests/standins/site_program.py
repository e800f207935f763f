"""The program behind the commands of a captured cluster: `site_program.py FOLDER NAME ARGUMENTS...`.

It repeats what SLURM 22.05 printed there, and refuses what it was not asked there.
"""

import json
import re
import sys
import time
from pathlib import Path

SCONTROL = {
    ("ping",): "ping",
    ("show", "config"): "settings",
    ("-a", "-o", "show", "partition"): "partitions",
    ("-a", "-d", "-o", "show", "node"): "nodes",
    ("-o", "show", "reservation"): "reservations",
}
SACCTMGR = {"user": "associations", "assoc": "accounts", "qos": "qos"}


def question(name, arguments):
    if name == "scontrol":
        return SCONTROL.get(tuple(arguments))
    if name == "sacctmgr" and arguments[:3] == ["-n", "-P", "show"]:
        return SACCTMGR.get(arguments[3])
    return "version" if arguments == ["--version"] else None


def main():
    folder, name, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    what = question(name, arguments)
    if what == "version":
        sys.stdout.write("slurm-wlm 22.05.8\n")
        return 0
    if what is None:
        with Path(sys.argv[0]).with_name("refused").open("a") as file:
            file.write(f"{name} {arguments}\n")
        sys.stderr.write(f"{name}: unrecognized option {arguments}\n")
        return 255
    failed = json.loads((folder / "failed.json").read_text()) if (folder / "failed.json").exists() else {}
    if what not in failed:
        # The one thing that is not as it was: a controller tells the time.
        now = time.strftime("Configuration data as of %Y-%m-%dT%H:%M:%S")
        sys.stdout.write(re.sub(r"^Configuration data as of \S+", now, (folder / what).read_text()))
        return 0
    sys.stdout.write(failed[what].get("stdout", ""))
    sys.stderr.write(failed[what]["stderr"])
    return failed[what]["code"]


sys.exit(main())
