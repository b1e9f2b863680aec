"""A block device with a volatile write cache, as an nbdkit plugin (`nbdkit python volatile_disk.py image=… control=… lies=… seed=…`).

What the host reads back is what it wrote. What the image file holds is what a power cut leaves: writes reach it with a flush, and
at a cut those since the last flush survive as the die falls: none, the first few, any of them, or any with single writes torn at 512
bytes. From the cut on every request fails. With `lies=30`, 30 % of the flushes are answered and not done; the next one that
is done does their work too.

The control socket takes one line and answers with one of JSON: `stats`, or `cut SEED N`, which cuts the power inside the n-th write
after a flush, on a disk that lies with a flush not done among them (N = 0: now; after 5 s without such a write: then).
"""

import errno
import json
import os
import random
import socket
import threading

import nbdkit

API_VERSION = 2
SECTOR = 512
PATIENCE_S = 5

options = {"lies": "0", "seed": "0"}
lock = threading.RLock()
done = threading.Condition(lock)
image = None
live = bytearray()
journal = []
count = {"writes": 0, "flushes": 0, "lies": 0}
standing = 0
armed = None
cut = None
dice = None


def config(key, value):
    options[key] = value


def config_complete():
    global image, live, dice
    image = os.open(options["image"], os.O_RDWR)
    live = bytearray(os.pread(image, os.fstat(image).st_size, 0))
    dice = random.Random(int(options["seed"]))


def after_fork():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options["control"])
    listener.listen()
    threading.Thread(target=serve, args=(listener,), daemon=True).start()


def serve(listener):
    while True:
        client = listener.accept()[0]
        with client, client.makefile("rw") as lines:
            words = lines.readline().split()
            if words[:1] == ["cut"]:
                answer = cut_at(int(words[1]), int(words[2]))
            else:
                with lock:
                    answer = dict(count, pending=len(journal))
            lines.write(json.dumps(answer) + "\n")


def cut_at(seed, nth):
    global armed
    with lock:
        armed = (seed, nth)
        if nth == 0 or not done.wait_for(lambda: cut is not None, PATIENCE_S):
            cut_now(inside=False)
        return dict(count, **cut)


def cut_now(inside):
    global cut
    chance = random.Random(armed[0])
    kind = chance.choice(["none", "first", "any", "torn"])
    survived = []
    if kind == "first":
        survived = journal[: chance.randint(0, len(journal))]
    elif kind == "any":
        survived = [write for write in journal if chance.random() < 0.5]
    elif kind == "torn":
        for offset, data in journal:
            whole = chance.random() < 0.3
            for at in range(0, len(data), SECTOR):
                if whole or chance.random() < 0.5:
                    survived.append((offset + at, data[at : at + SECTOR]))
    for offset, data in survived:
        os.pwrite(image, data, offset)
    cut = {
        "kind": kind,
        "inside": inside,
        "unflushed": len(journal),
        "unflushed_bytes": sum(len(data) for _, data in journal),
        "survived_bytes": sum(len(data) for _, data in survived),
    }
    done.notify_all()


def powered():
    if cut is not None:
        nbdkit.set_error(errno.EIO)
        raise OSError(errno.EIO, "the power is off")


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def open(readonly):
    return 1


def get_size(h):
    return len(live)


def pread(h, buf, offset, flags):
    with lock:
        powered()
        buf[:] = live[offset : offset + len(buf)]


def pwrite(h, buf, offset, flags):
    with lock:
        powered()
        data = bytes(buf)
        live[offset : offset + len(data)] = data
        journal.append((offset, data))
        count["writes"] += 1
        due = armed is not None and len(journal) >= armed[1] > 0
        if due and (standing > 0 or options["lies"] == "0"):
            cut_now(inside=True)
            powered()


def can_flush(h):
    return True


def flush(h, flags):
    global standing
    with lock:
        powered()
        count["flushes"] += 1
        if dice.random() * 100 < int(options["lies"]):
            count["lies"] += 1
            standing += 1
            return
        for offset, data in journal:
            os.pwrite(image, data, offset)
        journal.clear()
        standing = 0
