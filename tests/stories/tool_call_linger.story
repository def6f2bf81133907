# R12: the answer asks for a tool. The same client will be back in a moment, so the model waits for it a
# little although somebody else wants the machine; it does not wait for a client that is done.
device gpu0 16G
model alpha load_s=30
model beta load_s=30

    0.00 > Arrived 1 alpha caller=agent
         < Check alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Checked alpha#1
         < Start alpha#1 alpha [gpu0]
         < Tell alpha
    0.00 > Started alpha#1
         < Prove alpha#1
         < Tell alpha
   30.00 > Proved alpha#1
         < Grant 1 alpha#1
   31.00 > Arrived 2 beta
         < Tell beta
   32.00 > Released 1 outcome=continues
   33.00 > Arrived 3 alpha caller=agent
         < Grant 3 alpha#1
   35.00 > Released 3 outcome=continues
   37.00 .
         < Check beta#2 beta [gpu0]
   40.00 > Checked beta#2
         < Stop alpha#1
         < Tell beta
