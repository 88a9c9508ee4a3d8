import subprocess
import sys

SCRIPT = """
import sys, time
from analysis.closed_output import ClosedOutput
output = ClosedOutput(sys.stdout)
for number in range(2000):
    output.write(f"line {number}\\n" * 10)
    output.flush()
sys.stderr.write("went on to the end")
"""


def test_work_goes_on_when_nobody_reads_what_it_prints():
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.stderr.read() == b"went on to the end"
    process.stderr.close()
    assert process.wait() == 0
