"""How many programs JAX compiles in this process: what a chapter and its tests wait for.

Counted by JAX's own events, whether XLA compiles the program or an earlier run left it
in the cache. The number is the same on a slow machine and on a fast one, so the limits
are numbers of programs.
"""

import json
import time

import jax

CHAPTER, EQUATIONS = 300, 200  # the most that one of them may compile

count = 0


def note(event, seconds, **_):
    global count
    count += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(note)


def tell():
    """Print what this process cost so far: programs, and CPU seconds."""
    cost = {"programs": count, "cpu_seconds": time.process_time()}
    print(json.dumps(cost))
