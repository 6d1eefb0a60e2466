// Linear CKA on the device: centred Gram matrices of features [n, d], and what HSIC needs of two of them.
// Means: a thread a column, two passes over the rows, fp64. Gram: 64 x 64 of K a block of 256 threads, 4 x 4 a thread, 16 columns of the centred
// features at a time (8.5 KiB of shared memory); products of 16 columns are summed in fp32, these sums in fp64. Only tiles on and above the
// diagonal are computed, the others mirrored: half of the work. Features are read 2 n / 64 times half. Sums: a block a row of K and L, each read
// once; then one block over the rows, in order.
#include "nl.cuh"

struct GramMeansArgs
{
    const float* features; // [n, d]
    double* mean;          // [d]
    double* variance;      // [d]
    int32 n, d;
};

NL_INLINE double divideRounded(double a, double b) { double r; asm("div.rn.f64 %0, %1, %2;" : "=d"(r) : "d"(a), "d"(b)); return r; }

// The mean is taken of the differences to the first row: a constant column centres to exactly 0.
NL_KERNEL(128) gram_means_f32(GramMeansArgs a)
{
    int column = block() * threads() + thread();
    if (column >= a.d)
        return;
    const float* x = a.features + column;
    double first = x[0], sum = 0;
    for (int i = 0; i < a.n; i++)
        sum += (double)x[(int64)i * a.d] - first;
    double mean = divideRounded(sum, a.n) + first, squares = 0;
    for (int i = 0; i < a.n; i++)
    {
        double v = (double)x[(int64)i * a.d] - mean;
        squares = fma(v, v, squares);
    }
    a.mean[column] = mean;
    a.variance[column] = divideRounded(squares, a.n);
}

struct GramArgs
{
    const float* features;
    const double* mean;
    double* gram; // [n, n]
    int32 n, d;
};

constexpr int tile = 64, columnsAtOnce = 16, gramPitch = tile + 4;

NL_INLINE void takeCentred(const GramArgs& a, int row0, int column0, float* to)
{
    for (int i = thread(); i < tile * columnsAtOnce; i += 256)
    {
        int row = i / columnsAtOnce, column = i % columnsAtOnce;
        bool there = row0 + row < a.n && column0 + column < a.d;
        to[column * gramPitch + row] = there ? (float)((double)a.features[(int64)(row0 + row) * a.d + column0 + column] - a.mean[column0 + column]) : 0.0f;
    }
}

NL_KERNEL(256) gram_centred_f32(GramArgs a)
{
    __shared__ float left[columnsAtOnce * gramPitch], right[columnsAtOnce * gramPitch];
    int row0 = blockY() * tile, column0 = block() * tile;
    if (row0 > column0)
        return;
    int row = (thread() >> 4) * 4, column = (thread() & 15) * 4;
    double sums[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            sums[i][j] = 0;
    for (int from = 0; from < a.d; from += columnsAtOnce)
    {
        takeCentred(a, row0, from, left);
        takeCentred(a, column0, from, right);
        barrier();
        float part[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                part[i][j] = 0;
        for (int k = 0; k < columnsAtOnce; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    part[i][j] = fma(left[k * gramPitch + row + i], right[k * gramPitch + column + j], part[i][j]);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                sums[i][j] += part[i][j];
        barrier();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            int r = row0 + row + i, c = column0 + column + j;
            if (r >= a.n || c >= a.n)
                continue;
            a.gram[(int64)r * a.n + c] = sums[i][j];
            if (row0 != column0)
                a.gram[(int64)c * a.n + r] = sums[i][j];
        }
}

// Of each row: ΣKL, ΣK², ΣL², the sums of K and of L without the diagonal, and the diagonals.
struct CkaRowsArgs
{
    const double* k;
    const double* l;
    double* rows; // [n, 7]
    int64 n;
};

NL_KERNEL(256) cka_rows_f64(CkaRowsArgs a)
{
    __shared__ double slots[8];
    const double* k = a.k + (int64)block() * a.n;
    const double* l = a.l + (int64)block() * a.n;
    double kl = 0, kk = 0, ll = 0, sumK = 0, sumL = 0;
    for (int j = thread(); j < a.n; j += 256)
    {
        double x = k[j], y = l[j];
        kl = fma(x, y, kl);
        kk = fma(x, x, kk);
        ll = fma(y, y, ll);
        sumK += x;
        sumL += y;
    }
    kl = blockSum<8>(kl, slots);
    kk = blockSum<8>(kk, slots);
    ll = blockSum<8>(ll, slots);
    sumK = blockSum<8>(sumK, slots);
    sumL = blockSum<8>(sumL, slots);
    if (thread() != 0)
        return;
    double* to = a.rows + (int64)block() * 7;
    to[0] = kl;
    to[1] = kk;
    to[2] = ll;
    to[3] = sumK - k[block()];
    to[4] = sumL - l[block()];
    to[5] = k[block()];
    to[6] = l[block()];
}

// Over all rows: ΣKL, ΣK², ΣL²; the dots of diagonals kl, kk, ll; the dots of row sums kl, kk, ll; the row sums of K and of L.
struct CkaSumArgs
{
    const double* rows;
    double* sums; // [11]
    int64 n;
};

NL_KERNEL(256) cka_sum_f64(CkaSumArgs a)
{
    __shared__ double slots[8];
    double s[11] = {};
    for (int64 i = thread(); i < a.n; i += 256)
    {
        const double* row = a.rows + i * 7;
        s[0] += row[0];
        s[1] += row[1];
        s[2] += row[2];
        s[3] = fma(row[5], row[6], s[3]);
        s[4] = fma(row[5], row[5], s[4]);
        s[5] = fma(row[6], row[6], s[5]);
        s[6] = fma(row[3], row[4], s[6]);
        s[7] = fma(row[3], row[3], s[7]);
        s[8] = fma(row[4], row[4], s[8]);
        s[9] += row[3];
        s[10] += row[4];
    }
#pragma unroll
    for (int i = 0; i < 11; i++)
    {
        double sum = blockSum<8>(s[i], slots);
        if (thread() == 0)
            a.sums[i] = sum;
    }
}
