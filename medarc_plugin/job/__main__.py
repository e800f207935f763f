"""Entry point: `python FOLDER LAUNCH_JSON`, where FOLDER is this one or a frozen copy of it.

`python FOLDER export RUN` writes a run's weights instead of starting it, and `python FOLDER probe QUESTION`
answers what a rehearsal asks of this interpreter.
"""

import sys
from importlib import import_module
from pathlib import Path

folder = Path(__file__).resolve().parent
if not __package__:
    # Started as a folder: import it as a package from the folder above, so that its modules find
    # each other and none of them hides a module of the same name.
    sys.path[0] = str(folder.parent)

arguments = sys.argv[1:]
entry = arguments[0] if arguments[:1] in (["export"], ["probe"]) else "owner"
sys.exit(import_module(f"{__package__ or folder.name}.{entry}").main(arguments[entry != "owner" :]))
