CREATE TABLE xf_sb (sbbh TEXT PRIMARY KEY, xydm TEXT, bdcdyh TEXT, mj TEXT);
