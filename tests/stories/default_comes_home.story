# R18: the default is there from the start, makes room when another is wanted, and returns when that one has
# been idle for as long as it may stay.
device gpu0 16G
model home default=true load_s=10
model guest load_s=10 idle_s=60

         < Check home#1 home [gpu0]
    0.10 > Checked home#1
         < Start home#1 home [gpu0]
    0.10 > Started home#1
         < Prove home#1
   10.00 > Proved home#1
   20.00 > Arrived 1 guest
         < Check guest#2 guest [gpu0]
         < Tell guest
   20.00 > Checked guest#2
         < Stop home#1
         < Tell guest
   21.00 > Gone home#1
         < Start guest#2 guest [gpu0]
         < Tell guest
   21.00 > Started guest#2
         < Prove guest#2
         < Tell guest
   31.00 > Proved guest#2
         < Grant 1 guest#2
   33.00 > Released 1
   93.00 .
         < Check home#3 home [gpu0]
         < Stop guest#2
   95.00 > Gone guest#2
   95.00 > Checked home#3
         < Start home#3 home [gpu0]
   95.00 > Started home#3
         < Prove home#3
  105.00 > Proved home#3
