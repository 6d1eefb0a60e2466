using NativeLora.Devices.Cpu;
using NativeLora.Tensors;

namespace NativeLora.Tests.Devices;

/// <summary>Buffers of one product with guard values around C, and the check against the reference.</summary>
internal sealed unsafe class GemmCase
{
    private const float Guard = 12345.5f;
    private readonly Random _random;
    private readonly List<Array> _pinned = [];
    private readonly float[] _start;
    private readonly float[] _c;
    private readonly float[]? _addend;
    private GemmArgs _args;

    public GemmCase(int seed, int m, int n, int k, int k2 = 0, int flags = 0, ElementType a = ElementType.F32,
        ElementType b = ElementType.F32, int pad = 0, bool bias = false, int addend = 0, float alpha = 1, float alpha2 = 1)
    {
        _random = new Random(seed);
        _args = new GemmArgs
        {
            M = m,
            N = n,
            K = k,
            K2 = k2,
            Alpha = alpha,
            Alpha2 = alpha2,
            A = Matrix(m, k, (flags & 1) != 0, a, pad),
            B = Matrix(k, n, (flags & 2) != 0, b, pad),
            A2 = Matrix(m, k2, (flags & 4) != 0, ElementType.F32, pad),
            B2 = Matrix(k2, n, (flags & 8) != 0, ElementType.F32, pad),
            CStride = n + pad,
            AddendStride = n + pad,
        };
        _c = Pinned<float>((m * (n + pad)) + 1);
        Array.Fill(_c, Guard);
        if (addend == 1)
        {
            for (var i = 0; i < m; i++)
            {
                for (var j = 0; j < n; j++)
                    _c[(i * (n + pad)) + j] = Next();
            }
        }
        _start = (float[])_c.Clone();
        _args.C = Pointer(_c);
        if (addend == 1)
            _args.Addend = _args.C;
        if (addend == 2)
        {
            _addend = Pinned<float>((m * (n + pad)) + 1);
            Fill(_addend);
            _args.Addend = Pointer(_addend);
        }
        if (bias)
        {
            var values = Pinned<float>(n + 1);
            Fill(values);
            _args.Bias = Pointer(values);
        }
    }

    public ref GemmArgs Args => ref _args;

    /// <summary>Runs and returns C's values; starts from the same C each time.</summary>
    public float[] Run(Gemm gemm)
    {
        _start.CopyTo(_c, 0);
        gemm.Run(_args);
        return (float[])_c.Clone();
    }

    public float[] RunRepeatedly(Gemm gemm, int times)
    {
        for (var i = 0; i < times; i++)
            gemm.Run(_args);
        return _c;
    }

    /// <summary>Runs and compares with the fp64 reference, and checks that nothing beside C's elements was written.</summary>
    public float[] RunAndCheck(Gemm gemm, int sample = int.MaxValue)
    {
        var result = Run(gemm);
        var reference = _args;
        var start = (float[])_start.Clone();
        fixed (float* before = start)
        {
            if (_args.Addend == _args.C)
                reference.Addend = before;
            // Rounding to nearest of a sum of L terms in order is off by at most L halves of the last place of Σ|terms|.
            var bound = (_args.K + _args.K2 + 4) * Math.Pow(2, -24);
            var total = (long)_args.M * _args.N;
            for (long at = 0, step = Math.Max(1, total / sample); at < total; at += step)
            {
                var (i, j) = ((int)(at / _args.N), (int)(at % _args.N));
                var (value, magnitude) = GemmReference.Element(reference, i, j);
                var actual = result[(i * _args.CStride) + j];
                Assert.True(Math.Abs(actual - value) <= bound * magnitude, $"{this} {gemm.Path} [{i},{j}] {actual} for {value}");
            }
        }
        for (var i = 0; i < result.Length; i++)
        {
            if (_args.N == 0 || i / _args.CStride >= _args.M || i % _args.CStride >= _args.N)
                Assert.Equal(Guard, result[i]);
        }
        return result;
    }

    public override string ToString() =>
        $"{_args.M}x{_args.N}x{_args.K}+{_args.K2} {_args.A.Type}{(_args.A.Transposed ? "t" : "")} {_args.B.Type}{(_args.B.Transposed ? "t" : "")}";

    private GemmMatrix Matrix(int rows, int columns, bool transposed, ElementType type, int pad)
    {
        var (lines, length) = transposed ? (columns, rows) : (rows, columns);
        var stride = length + pad;
        // Exactly as long as the contract says: the last row is not padded, what follows is a NaN.
        var count = lines == 0 ? 0 : ((lines - 1) * stride) + length;
        void* data;
        if (type == ElementType.F32)
        {
            var values = Pinned<float>(count + 1);
            Fill(values);
            values[count] = float.NaN;
            data = Pointer(values);
        }
        else
        {
            var values = Pinned<ushort>(count + 1);
            for (var i = 0; i < count; i++)
                values[i] = type == ElementType.F16 ? BitConverter.HalfToUInt16Bits((Half)Next()) : Convert16.F32ToBF16(Next());
            values[count] = 0x7fff;
            data = Pointer(values);
        }
        return new GemmMatrix(data, Math.Max(stride, 1), transposed, type);
    }

    private T[] Pinned<T>(int count) where T : unmanaged
    {
        var array = GC.AllocateArray<T>(count, pinned: true);
        _pinned.Add(array);
        return array;
    }

    private static T* Pointer<T>(T[] pinned) where T : unmanaged
    {
        fixed (T* at = pinned)
            return at;
    }

    private void Fill(float[] values)
    {
        for (var i = 0; i < values.Length; i++)
            values[i] = Next();
    }

    private float Next() => (_random.NextSingle() * 2) - 1;
}
