"""Do what docs/writing-a-plugin.md says, outside this repository: ``tutorial.py PYTHON [PIP_OPTION...]``.

Files are the blocks with a title, commands those in bash; PYTHON is an environment with advloss[gan], into which the
plugin is installed. Nothing else of the repository is used but examples/train_gan.py, as the page says.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def main(python, pip_options):
    page = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "work").mkdir()
        shutil.copy(ROOT / "examples" / "train_gan.py", home / "work")
        names = {"python": [python], "advloss": [python, "-m", "advloss"], "pip": [python, "-m", "pip"]}
        for language, title, text in BLOCK.findall(page):
            if title:
                (home / "plugin").mkdir(exist_ok=True)
                (home / "plugin" / title).write_text(text, encoding="utf-8")
                print(f"wrote {title}: {len(text.splitlines())} lines", flush=True)
            for line in text.splitlines() if language == "bash" else ():
                program, *rest = line.split()
                options = ["--quiet", *pip_options] if program == "pip" else []
                done = subprocess.run(
                    [*names[program], *rest, *options],
                    cwd=home / ("plugin" if program == "pip" else "work"),
                    env={**os.environ, "ACCELERATE_USE_CPU": "1", "MPLBACKEND": "Agg"},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                print(f"$ {line}\n{done.stdout}{done.stderr if done.returncode else ''}", flush=True)
                if done.returncode:
                    return f"{line!r} failed with {done.returncode}"
        written = {path.relative_to(home / "work").parts[0] for path in (home / "work").rglob("*") if path.is_file()}
        if written != {"train_gan.py", "runs", "advloss-wavelet"}:
            return f"unexpected files: {sorted(written)}"
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
