// What the snippets share: every kernel takes four arrays and a number.
#pragma once
#include "../../../kernels/cuda/nl.cuh"

struct Args
{
    const void* a;
    const void* b;
    const void* c;
    void* out;
    int64 n;
};

NL_INLINE int at() { return block() * threads() + thread(); }
