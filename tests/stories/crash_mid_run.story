# An engine dies while it answers. What it left is swept at once; its answers end by themselves; who waits
# gets a new start after a short rest. A late word of the dead one means nothing.
device gpu0 16G
model alpha concurrency=1 load_s=10

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   10.00 > Proved alpha#1
         < Grant 1 alpha#1
   12.00 > Arrived 2 alpha
         < Tell alpha
   15.00 > Exited alpha#1 {"kind":"crashed","cause":"it was killed by signal 9"}
         < Stop alpha#1 polite=false
         < Tell alpha
   15.00 > Released 1 outcome=failed
   16.00 > Gone alpha#1
         < Tell alpha
   16.50 > Proved alpha#1  # too late, it is gone
   17.00 .
         < Check alpha#2 alpha [gpu0]
         < Tell alpha
   17.50 > Checked alpha#2
         < Start alpha#2 alpha [gpu0]
         < Tell alpha
   17.50 > Started alpha#2
         < Prove alpha#2
         < Tell alpha
   27.00 > Proved alpha#2
         < Grant 2 alpha#2
   28.00 > Released 2
