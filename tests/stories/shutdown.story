# The router ends: who waits is refused, who is answered may finish, engines are stopped, then it is done.
device gpu0 16G
model alpha concurrency=1

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
    5.00 > Proved alpha#1
         < Grant 1 alpha#1
    6.00 > Arrived 2 alpha
         < Tell alpha
    7.00 > ShutdownAsked
         < Refuse 2 {"reason": "shutting_down", "model": "alpha"}
    8.00 > Arrived 3 alpha
         < Refuse 3 {"reason": "shutting_down", "model": "alpha"}
    9.00 > Released 1
         < Stop alpha#1
   11.00 > Gone alpha#1
         < Finish
