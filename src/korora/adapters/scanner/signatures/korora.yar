// Test files, and nothing else: with these rules alone, "clean" says next to nothing.

rule korora_test_eicar
{
    meta:
        description = "the test file of the EICAR"
    strings:
        $whole = { 58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29 37 7D 24 45 49 43 41 52 2D 53 54 41 4E 44 41 52 44 2D 41 4E 54 49 56 49 52 55 53 2D 54 45 53 54 2D 46 49 4C 45 21 24 48 2B 48 2A }
    condition:
        $whole at 0
}

import "hash"

rule korora_test_clamav
{
    meta:
        description = "the test file of ClamAV"
    condition:
        filesize == 544 and hash.sha256(0, filesize) == "71e7b604d18aefd839e51a39c88df8383bb4c071dc31f87f00a2b5df580d4495"
}
