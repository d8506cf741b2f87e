"""Compare the closed form with the walk on many random cases, by hand.

    PYTHONPATH=tests python tests/many_cases.py 100000 [seed]

Prints every case that differs and ends with their number; some 30 cases a second.
"""

import random
import sys

from strategies import random_case
from test_counts import differences


def main() -> None:
    cases, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rng = random.Random(seed)
    different = 0
    for _ in range(cases):
        case = random_case(rng)
        found = differences(*case)
        if found:
            different += 1
            print(case, *found, sep="\n  ", flush=True)
    print(f"{cases} cases with seed {seed}, {different} differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
