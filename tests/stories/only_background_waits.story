# R17: the chat is stopped while its model loads. The title request beside it keeps no load alive.
device gpu0 16G
model alpha load_s=40

    0.00 > Arrived 1 alpha background=true
         < Tell alpha
    0.20 > Arrived 2 alpha
         < Check alpha#1 alpha [gpu0]
    0.20 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.20 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
    5.00 > Withdrawn 2
         < Stop alpha#1
         < Refuse 1 {"reason": "background_refused", "model": "alpha", "retry_after_s": 5.0}
    7.00 > Gone alpha#1
