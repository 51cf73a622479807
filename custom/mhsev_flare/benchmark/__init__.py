"""How well the jobs grade: every row of one table on the same repeated splits, with what it is compared with."""
