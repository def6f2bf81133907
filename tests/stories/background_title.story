# R17: a title request never starts or wins a switch. It comes first, the chat comes 0.2 s later: one load,
# and the chat is served before it. For a model that is not loaded it is refused softly, and starts nothing.
device gpu0 16G
model alpha load_s=10
model beta load_s=10

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
   10.20 > Proved alpha#1
         < Grant 2 alpha#1
         < Grant 1 alpha#1
   11.00 > Arrived 3 beta background=true
         < Tell beta
   12.00 > Released 2
   12.10 > Released 1
   13.00 .
         < Refuse 3 {"reason": "background_refused", "model": "beta", "retry_after_s": 5.0}
   13.50 > Arrived 7 alpha background=true  # on a loaded model too the chat that follows goes first
         < Tell alpha
   13.70 > Arrived 8 alpha caller=ann
         < Grant 8 alpha#1
         < Grant 7 alpha#1
   13.80 > Released 8
   13.90 > Released 7
   14.00 > Arrived 4 alpha background=true  # no chat follows: it is served after a moment
         < Tell alpha
   14.50 .
         < Grant 4 alpha#1
   15.00 > Arrived 5 beta
         < Check beta#2 beta [gpu0]
         < Tell beta
   15.10 > Checked beta#2
         < Tell beta
   15.50 > Arrived 6 alpha background=true  # but it does not prolong its stay
         < Tell alpha
   16.00 > Released 4
         < Stop alpha#1
         < Tell alpha
         < Tell beta
