# What can never fit is answered at once, and starts nothing.
device gpu0 16G
model alpha size=20G
model beta devices=2

    0.00 > Arrived 1 alpha
         < Refuse 1 {"reason": "load_failed", "model": "alpha", "failure": {"kind": "no_room", "cause": "cannot make room for alpha: it needs all devices with 20.0 GiB of memory on each, and here is gpu0 with 16.0 GiB; give it fewer devices or a smaller context, or unpin a model"}}
    1.00 > Arrived 2 beta
         < Refuse 2 {"reason": "load_failed", "model": "beta", "failure": {"kind": "no_room", "cause": "cannot make room for beta: it needs 2 devices with all of the memory on each, and here is gpu0 with 16.0 GiB; give it fewer devices or a smaller context, or unpin a model"}}
