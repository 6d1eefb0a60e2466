// y = x W + bias + addend + P up with P = s·x down made on the way, in one pass over x: LoRA's forward (W turned, down = Aᵀ, up = Bᵀ), and its
// backward dx = addend + dy W + dP A with dP = s·dy B. Without a rank it is a linear layer with its bias.
//
// A block of 8 warps computes 128 rows by 128 columns of x [W; down]: 128 - R columns of y and the R columns of P side by side, R being the
// rank rounded up to 16, 32 or 64. Then P, rounded to bf16 through shared memory, extends the depth by R, with `up` from the cache. Each column
// of tiles makes P anew (R / (128 - R) more work than the product alone); the first one writes it.
// Tiles are 128 x 32 of x and 32 x 128 of [W; down], in three stages of cp.async: 48 KiB of static shared memory. mma.m16n8k16, bf16 with fp32
// sums; a warp has 64 x 32 of them. Traffic: x is read once a column of tiles, W once a row of tiles, in groups of 8 rows of tiles so that W's
// tile stays in the L2; y is written once, the addend read once. x and W need rows of whole chunks of 16 bytes.
#include "tiles.cuh"

struct LoraLinearArgs
{
    const bf16* x;       // [m, k]
    const bf16* w;       // turned: [n, k], else [k, n]
    const bf16* down;    // turned: [R, k], else [k, R], zeros beyond the rank
    const bf16* up;      // [n, R], zeros beyond the rank
    const float* bias;   // [n] or 0
    const bf16* addend;  // [m, n] or 0; may be y
    bf16* y;             // [m, n]
    float* p;            // [m, rank]
    int32 m, n, k, rank;
    float scaling;
    int32 unused;
};

constexpr int tileRows = 128, tileColumns = 128, depth = 32, stages = 3, groupRows = 8;
constexpr int tileBytes = 128 * depth * 2;

template<bool TURNED, int R, int STACKED> NL_INLINE void loadTiles(const LoraLinearArgs& a, uint32 to, int row0, int column0, int k0)
{
    constexpr int own = tileColumns - STACKED;
    for (int i = 0; i < 2; i++)
    {
        int c = thread() + 256 * i, row = c >> 2, chunk = c & 3, k = k0 + chunk * 8;
        bool there = row0 + row < a.m && k < a.k;
        copyAsync(to + narrowTile(row, chunk), there ? a.x + (int64)(row0 + row) * a.k + k : a.x, there);
    }
    to += tileBytes;
    for (int i = 0; i < 2; i++)
    {
        int c = thread() + 256 * i;
        const bf16* from;
        bool there;
        uint32 at;
        if (TURNED)
        {
            int row = c >> 2, chunk = c & 3, k = k0 + chunk * 8;
            bool main = row < own;
            there = k < a.k && (!main || column0 + row < a.n);
            from = main ? a.w + (int64)(column0 + row) * a.k + k : a.down + (int64)(row - own) * a.k + k;
            at = narrowTile(row, chunk);
        }
        else
        {
            int row = c >> 4, chunk = c & 15, k = k0 + row, column = chunk * 8;
            bool main = column < own;
            there = k < a.k && (!main || column0 + column < a.n);
            from = main ? a.w + (int64)k * a.n + column0 + column : a.down + (int64)k * R + (column - own);
            at = wideTile(row, chunk);
        }
        copyAsync(to + at, there ? from : a.w, there);
    }
}

template<bool TURNED> NL_INLINE void multiplyTiles(uint32 tiles, int row0, int column0, float (&sums)[4][4][4])
{
    uint32 others = tiles + tileBytes;
    int l = lane();
#pragma unroll
    for (int k = 0; k < depth; k += 16)
    {
        Four x[4], w[2];
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i] = loadMatrices(tiles + narrowTile(row0 + i * 16 + (l & 15), (k >> 3) + (l >> 4)));
#pragma unroll
        for (int j = 0; j < 2; j++)
            w[j] = TURNED ? loadMatrices(others + narrowTile(column0 + j * 16 + (l & 7) + (l >> 4) * 8, (k >> 3) + ((l >> 3) & 1)))
                          : loadMatricesTurned(others + wideTile(k + (l & 15), (column0 >> 3) + j * 2 + (l >> 4)));
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 2; j++)
            {
                multiply(sums[i][2 * j], x[i], w[j].a, w[j].b);
                multiply(sums[i][2 * j + 1], x[i], w[j].c, w[j].d);
            }
    }
}

// GIVEN: P is an input, made of x after dropout.
template<bool TURNED, int R, bool GIVEN = false> NL_INLINE void loraLinear(const LoraLinearArgs& a)
{
    constexpr int stacked = GIVEN ? 0 : R, own = tileColumns - stacked;
    alignas(128) __shared__ uint8 shared[stages * 2 * tileBytes];
    int columnTiles = (a.n + own - 1) / own, rowTiles = (a.m + tileRows - 1) / tileRows;
    int group = block() / (groupRows * columnTiles), within = block() - group * groupRows * columnTiles;
    int height = minimum(groupRows, rowTiles - group * groupRows);
    int columnTile = within / height;
    int row0 = (group * groupRows + within - columnTile * height) * tileRows, column0 = columnTile * own;
    int warpRow = (warp() >> 2) * 64, warpColumn = (warp() & 3) * 32;
    uint32 base = sharedAddress(shared);

    float sums[4][4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums[i][j][e] = 0;

    int steps = (a.k + depth - 1) / depth;
#pragma unroll
    for (int s = 0; s < stages - 1; s++)
    {
        if (s < steps)
            loadTiles<TURNED, R, stacked>(a, base + s * 2 * tileBytes, row0, column0, s * depth);
        copyCommit();
    }
    int stage = 0, next = stages - 1;
    for (int s = 0; s < steps; s++)
    {
        copyWait<stages - 2>();
        // What all threads copied is there, and nobody reads the stage that is filled next.
        barrier();
        if (s + stages - 1 < steps)
            loadTiles<TURNED, R, stacked>(a, base + next * 2 * tileBytes, row0, column0, (s + stages - 1) * depth);
        copyCommit();
        multiplyTiles<TURNED>(base + stage * 2 * tileBytes, warpRow, warpColumn, sums);
        stage = stage + 1 == stages ? 0 : stage + 1;
        next = next + 1 == stages ? 0 : next + 1;
    }
    copyWait<0>();

    int inRow = lane() >> 2, inColumn = (lane() & 3) * 2;
    if (R > 0)
    {
        // 8 values beyond keep rows on different banks.
        constexpr int pitch = R + 8;
        bf16* made = (bf16*)shared;
        barrier();
        if (GIVEN)
        {
            for (int c = thread(); c < tileRows * R; c += 256)
            {
                int row = c / R, column = c % R;
                bool there = row0 + row < a.m && column < a.rank;
                made[row * pitch + column] = narrow<bf16>(there ? a.p[(int64)(row0 + row) * a.rank + column] : 0.0f);
            }
        }
        else
        {
#pragma unroll
            for (int j = 0; j < 4; j++)
            {
                int column = warpColumn + j * 8 + inColumn - own;
                if (column < 0)
                    continue;
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int h = 0; h < 2; h++)
                    {
                        int row = warpRow + i * 16 + inRow + h * 8;
                        float p0 = a.scaling * sums[i][j][2 * h], p1 = a.scaling * sums[i][j][2 * h + 1];
                        *(uint32*)(made + row * pitch + column) = pack(p0, p1);
                        if (columnTile != 0 || row0 + row >= a.m)
                            continue;
                        float* p = a.p + (int64)(row0 + row) * a.rank + column;
                        if (column < a.rank)
                            p[0] = p0;
                        if (column + 1 < a.rank)
                            p[1] = p1;
                    }
            }
        }
        barrier();
#pragma unroll
        for (int k = 0; k < R; k += 16)
        {
            Four p[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
            {
                const bf16* from = made + (warpRow + i * 16 + inRow) * pitch + k + inColumn;
                p[i] = Four{*(const uint32*)from, *(const uint32*)(from + 8 * pitch), *(const uint32*)(from + 8), *(const uint32*)(from + 8 * pitch + 8)};
            }
#pragma unroll
            for (int j = 0; j < 4; j++)
            {
                int tile = warpColumn + j * 8, column = column0 + tile + inRow;
                if (tile >= own)
                    continue;
                const bf16* from = a.up + (int64)column * R + k + inColumn;
                bool there = column < a.n;
                uint32 b0 = there ? *(const uint32*)from : 0, b1 = there ? *(const uint32*)(from + 8) : 0;
#pragma unroll
                for (int i = 0; i < 4; i++)
                    multiply(sums[i][j], p[i], b0, b1);
            }
        }
    }

    // Through shared memory, 64 rows at a time, so that rows are written in whole lines.
    constexpr int pitch = tileColumns + 8;
    float* rows = (float*)shared;
    int width = minimum(own, a.n - column0);
    bool pairs = (a.n & 1) == 0;
    for (int half = 0; half < 2; half++)
    {
        barrier();
        if (warpRow == half * 64)
        {
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        rows[(i * 16 + inRow + (e >> 1) * 8) * pitch + warpColumn + j * 8 + inColumn + (e & 1)] = sums[i][j][e];
        }
        barrier();
        int height = minimum(64, a.m - row0 - half * 64);
        for (int c = thread(); c < 64 * (own / 2); c += 256)
        {
            int row = c / (own / 2), inTile = c % (own / 2) * 2;
            if (row >= height || inTile >= width)
                continue;
            bool both = inTile + 1 < width;
            float y0 = rows[row * pitch + inTile], y1 = rows[row * pitch + inTile + 1];
            if (a.bias)
            {
                y0 += a.bias[column0 + inTile];
                y1 += both ? a.bias[column0 + inTile + 1] : 0.0f;
            }
            int64 at = (int64)(row0 + half * 64 + row) * a.n + column0 + inTile;
            if (pairs)
            {
                uint32 add = a.addend ? *(const uint32*)(a.addend + at) : 0;
                *(uint32*)(a.y + at) = pack(y0 + floatOf(add << 16), y1 + floatOf(add & 0xffff0000u));
                continue;
            }
            a.y[at] = narrow<bf16>(a.addend ? y0 + widen(a.addend[at]) : y0);
            if (both)
                a.y[at + 1] = narrow<bf16>(a.addend ? y1 + widen(a.addend[at + 1]) : y1);
        }
    }
}

// `_turned`: W is stored [n, k].
NL_KERNEL(256) lora_linear_turned_0_bf16(LoraLinearArgs a) { loraLinear<true, 0>(a); }
NL_KERNEL(256) lora_linear_turned_16_bf16(LoraLinearArgs a) { loraLinear<true, 16>(a); }
NL_KERNEL(256) lora_linear_turned_32_bf16(LoraLinearArgs a) { loraLinear<true, 32>(a); }
NL_KERNEL(256) lora_linear_turned_64_bf16(LoraLinearArgs a) { loraLinear<true, 64>(a); }
NL_KERNEL(256) lora_linear_plain_0_bf16(LoraLinearArgs a) { loraLinear<false, 0>(a); }
NL_KERNEL(256) lora_linear_plain_16_bf16(LoraLinearArgs a) { loraLinear<false, 16>(a); }
NL_KERNEL(256) lora_linear_plain_32_bf16(LoraLinearArgs a) { loraLinear<false, 32>(a); }
NL_KERNEL(256) lora_linear_plain_64_bf16(LoraLinearArgs a) { loraLinear<false, 64>(a); }

// As above with P given.
NL_KERNEL(256) lora_given_turned_16_bf16(LoraLinearArgs a) { loraLinear<true, 16, true>(a); }
NL_KERNEL(256) lora_given_turned_32_bf16(LoraLinearArgs a) { loraLinear<true, 32, true>(a); }
NL_KERNEL(256) lora_given_turned_64_bf16(LoraLinearArgs a) { loraLinear<true, 64, true>(a); }
NL_KERNEL(256) lora_given_plain_16_bf16(LoraLinearArgs a) { loraLinear<false, 16, true>(a); }
NL_KERNEL(256) lora_given_plain_32_bf16(LoraLinearArgs a) { loraLinear<false, 32, true>(a); }
NL_KERNEL(256) lora_given_plain_64_bf16(LoraLinearArgs a) { loraLinear<false, 64, true>(a); }

// An adapter's factors as the kernels above read them: bf16 [rows, columns], turned or not, zeros beyond the source. One factor a row of blocks.
struct LoraPackPart
{
    const float* source; // [sourceRows, sourceColumns]
    bf16* target;
    int32 sourceRows, sourceColumns;
    int32 rows, columns;
    int32 turned, unused;
};
struct LoraPackArgs
{
    LoraPackPart down, up;
};

NL_KERNEL(256) lora_pack_bf16(LoraPackArgs both)
{
    const LoraPackPart a = blockY() == 0 ? both.down : both.up;
    int64 count = (int64)a.rows * a.columns;
    for (int64 i = (int64)block() * threads() + thread(); i < count; i += (int64)blocks() * threads())
    {
        int row = (int)(i / a.columns), column = (int)(i - (int64)row * a.columns);
        int sourceRow = a.turned ? column : row, sourceColumn = a.turned ? row : column;
        bool there = sourceRow < a.sourceRows && sourceColumn < a.sourceColumns;
        a.target[i] = narrow<bf16>(there ? a.source[(int64)sourceRow * a.sourceColumns + sourceColumn] : 0.0f);
    }
}
