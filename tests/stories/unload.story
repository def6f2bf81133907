# An operator unloads a model: who is answered may finish, who waits is refused, who asks later starts it anew.
device gpu0 16G
model alpha concurrency=1 pin=true

         < Check alpha#1 alpha [gpu0]
    0.10 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
    0.10 > Started alpha#1
         < Prove alpha#1
   10.00 > Proved alpha#1
   11.00 > Arrived 1 alpha
         < Grant 1 alpha#1
   12.00 > Arrived 2 alpha
         < Tell alpha
   13.00 > UnloadAsked alpha
         < Refuse 2 {"reason": "unloaded", "model": "alpha"}
   14.00 > Arrived 3 alpha
         < Tell alpha
   15.00 > Released 1
         < Stop alpha#1
         < Tell alpha
   16.00 > Gone alpha#1
         < Check alpha#2 alpha [gpu0]
         < Tell alpha
