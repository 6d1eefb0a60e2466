// Lanes that part and meet: nested branches, loops of different length, early ends, jumps by table.
#include "snippet.cuh"

// How long until 1, with the way there folded in; lanes leave the loop one by one.
NL_KERNEL(64) collatz(Args g)
{
    int i = at();
    uint32 x = ((const uint32*)g.a)[i] % 1000 + 1, steps = 0, fold = 0;
    while (x != 1)
    {
        if (x & 1)
        {
            x = 3 * x + 1;
            if (steps % 3 == 2)
                fold ^= x * 7;
        }
        else
        {
            x >>= 1;
            if ((x & 3) == 3)
                continue;
            fold += x;
        }
        if (++steps > 200)
            break;
    }
    // All lanes are together again.
    uint32 sum = (uint32)warpSum((float)steps);
    ((uint32*)g.out)[i * 2] = fold * 1000 + steps;
    ((uint32*)g.out)[i * 2 + 1] = sum;
}
// Threads at the end of the range leave before; the others go on with what is left.
NL_KERNEL(64) early(Args g)
{
    int i = at();
    if (i >= g.n)
        return;
    const uint32* a = (const uint32*)g.a;
    uint32 sum = 0;
    for (uint32 k = 0; k < a[i] % 17; k++)
    {
        if (a[(i + k) % g.n] % 13 == 0)
        {
            ((uint32*)g.out)[i] = 0x80000000u + k;
            return;
        }
        for (uint32 m = 0; m < a[(i + k) % g.n] % 5; m++)
            sum += m * k + a[m];
    }
    ((uint32*)g.out)[i] = sum;
}
NL_KERNEL(64) table(Args g)
{
    int i = at();
    uint32 x = ((const uint32*)g.a)[i], r;
    asm volatile("{\n"
                 ".reg .u32 t;\n"
                 "TARGETS: .branchtargets L0, L1, L2, L3;\n"
                 "and.b32 t, %1, 3;\n"
                 "brx.idx t, TARGETS;\n"
                 "L0: mov.u32 %0, 10; bra.uni END;\n"
                 "L1: add.u32 %0, %1, 1; bra END;\n"
                 "L2: mul.lo.u32 %0, %1, %1; bra END;\n"
                 "L3: mov.u32 %0, 40;\n"
                 "END: add.u32 %0, %0, 5;\n"
                 "}\n" : "=r"(r) : "r"(x));
    uint32 all;
    asm volatile("redux.sync.add.u32 %0, %1, 0xffffffff;" : "=r"(all) : "r"(r));
    ((uint32*)g.out)[i * 2] = r;
    ((uint32*)g.out)[i * 2 + 1] = all;
}
// Some lanes of a warp have left when the others exchange: a shuffle among those that remain.
NL_KERNEL(64) remain(Args g)
{
    int i = at();
    uint32 x = ((const uint32*)g.a)[i];
    if (lane() >= 24)
    {
        if (x & 1)
            return;
        ((uint32*)g.out)[i] = 9;
        if (x & 2)
            return;
    }
    uint32 r;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(x), "r"(lane() % 24));
    ((uint32*)g.out)[i] = r;
}
