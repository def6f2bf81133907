# R27: the engine is alive but fails its requests. It gets nothing new, who is being answered may finish, and
# another is started because somebody waits.
device gpu0 16G
model alpha load_s=10

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
   12.00 > Sickened alpha#1 {"kind":"crashed","cause":"five requests failed in a row"}
   13.00 > Arrived 2 alpha
         < Tell alpha
   15.00 > Released 1
         < Stop alpha#1
         < Tell alpha
   16.00 > Gone alpha#1
         < Check alpha#2 alpha [gpu0]
         < Tell alpha
   16.50 > Checked alpha#2
         < Start alpha#2 alpha [gpu0]
         < Tell alpha
   16.50 > Started alpha#2
         < Prove alpha#2
         < Tell alpha
   26.50 > Proved alpha#2
         < Grant 2 alpha#2
