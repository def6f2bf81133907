# R10: while alpha drains, an answer without progress for a minute is ended, and one that goes on for ever is
# ended after the longest drain; their clients get an error, and nobody else is touched.
device gpu0 16G
model alpha load_s=10
model beta load_s=10
setting stall_s=60 drain_timeout_s=100 quantum_factor=1

    0.00 > Arrived 1 alpha
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Arrived 2 alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   10.00 > Proved alpha#1
         < Grant 1 alpha#1
         < Grant 2 alpha#1
   11.00 > Arrived 3 beta
         < Tell beta
   21.00 .
         < Check beta#2 beta [gpu0]
   21.50 > Checked beta#2
         < Tell beta
   60.00 > Progressed 1
   80.00 > Progressed 1
   81.50 .
         < End 2 stalled
   82.00 > Released 2 outcome=failed
  110.00 > Progressed 1
  121.50 .
         < End 1 drain_timeout
  122.00 > Released 1 outcome=failed
         < Stop alpha#1
         < Tell beta
