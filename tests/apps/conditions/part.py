"""One of many modules; each takes as long to import as the file `pace` says."""

import time
from pathlib import Path

time.sleep(float(Path(__file__).with_name("pace").read_text()))
