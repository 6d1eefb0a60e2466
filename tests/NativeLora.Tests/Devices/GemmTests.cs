using NativeLora.Devices.Cpu;
using NativeLora.Tensors;

namespace NativeLora.Tests.Devices;

public sealed class GemmTests : IDisposable
{
    private static readonly ElementType[] s_types = [ElementType.F32, ElementType.F16, ElementType.BF16];
    private readonly CpuThreads _threads = new(2);
    private readonly List<Gemm> _gemms;

    public GemmTests()
    {
        _gemms = Enum.GetValues<CpuPath>().Where(CpuPaths.IsSupported).Select(path => new Gemm(_threads, path)).ToList();
    }

    public void Dispose()
    {
        _gemms.ForEach(g => g.Dispose());
        _threads.Dispose();
    }

    [Fact]
    public void Odd_sizes_of_every_form()
    {
        var random = new Random(1);
        for (var i = 0; i < 700; i++)
        {
            int Size() => random.Next(4) == 0 ? random.Next(6) : random.Next(71);
            var test = new GemmCase(
                i, Size(), Size(), Size(), random.Next(2) == 0 ? 0 : Size(), flags: i % 16,
                s_types[random.Next(3)], s_types[random.Next(3)], pad: random.Next(3) * 3, bias: random.Next(2) == 0,
                addend: random.Next(3), alpha: random.Next(2) == 0 ? 1 : 0.3f, alpha2: random.Next(2) == 0 ? 1 : -1.7f);
            foreach (var gemm in _gemms)
                test.RunAndCheck(gemm);
        }
    }

    // Sizes around the blocking: rows of a block, depth of a block, columns of a block, few rows, few columns, much depth.
    [Theory]
    [InlineData(193, 131, 257, 8)]
    [InlineData(96, 96, 384, 0)]
    [InlineData(401, 64, 512, 16)]
    [InlineData(250, 2085, 140, 4)]
    [InlineData(8, 768, 2000, 0)]
    [InlineData(768, 8, 1030, 0)]
    [InlineData(1, 1001, 2500, 8)]
    [InlineData(4, 333, 2048, 2100)]
    [InlineData(260, 530, 4100, 0)]
    [InlineData(97, 40, 385, 16)]
    [InlineData(2, 39, 9000, 8300)]
    [InlineData(700, 30, 0, 300)]
    public void Sizes_around_the_blocks(int m, int n, int k, int k2)
    {
        for (var flags = 0; flags < 16; flags += 5)
        {
            var b = s_types[flags % 3];
            var test = new GemmCase(m, m, n, k, k2, flags, ElementType.F32, b, bias: true, addend: flags % 3, alpha2: 2);
            foreach (var gemm in _gemms)
                test.RunAndCheck(gemm, sample: 3000);
        }
    }

    [Theory]
    [InlineData(300, 700, 600, 8)]
    [InlineData(100, 700, 600, 8)]
    [InlineData(1024, 8, 900, 0)]
    [InlineData(2, 900, 3000, 8)]
    [InlineData(8, 900, 3000, 0)]
    public void Bits_do_not_depend_on_the_number_of_threads(int m, int n, int k, int k2)
    {
        foreach (var flags in new[] { 10, 5 })
        {
            var test = new GemmCase(3, m, n, k, k2, flags, bias: true, addend: 1, alpha: 0.7f);
            foreach (var path in _gemms.Select(g => g.Path))
            {
                var results = new List<float[]>();
                foreach (var count in new[] { 1, 2, 4, 7 })
                {
                    using var threads = new CpuThreads(count);
                    using var gemm = new Gemm(threads, path);
                    results.Add(test.Run(gemm));
                }
                Assert.All(results, r => Assert.Equal(results[0], r));
            }
        }
    }

    [Fact]
    public void Rows_do_not_depend_on_their_neighbours()
    {
        foreach (var gemm in _gemms)
        {
            var whole = new GemmCase(5, 300, 70, 400, 8);
            var all = whole.Run(gemm);
            foreach (var rows in new[] { 299, 193, 64, 13, 5 })
            {
                whole.Args.M = rows;
                Assert.Equal(all[..(rows * 70)], whole.Run(gemm)[..(rows * 70)]);
            }
        }
    }

    [Fact]
    public void A_run_allocates_nothing()
    {
        foreach (var (m, n, k) in new[] { (300, 200, 300), (64, 300, 300), (1, 600, 600), (30, 10, 0) })
        {
            var test = new GemmCase(1, m, n, k, 8, flags: 10, b: ElementType.BF16, bias: true, addend: 1);
            foreach (var gemm in _gemms)
            {
                test.RunRepeatedly(gemm, 40);
                var before = GC.GetAllocatedBytesForCurrentThread();
                test.RunRepeatedly(gemm, 10);
                Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
            }
        }
    }

    [Fact]
    public void Not_a_number_stays_where_it_belongs()
    {
        // Panels are padded with zeros; what lies beside an operand's rows must not get in.
        foreach (var gemm in _gemms)
        {
            var test = new GemmCase(2, 33, 37, 41, flags: 2);
            unsafe
            {
                ((float*)test.Args.A.Data)[41 * 7] = float.NaN;
            }
            var result = test.Run(gemm);
            for (var i = 0; i < 33 * 37; i++)
                Assert.Equal(i / 37 == 7, float.IsNaN(result[i]));
        }
    }

    [Fact]
    public void Wrong_arguments_are_refused()
    {
        var gemm = _gemms[0];
        Refused((ref GemmArgs g) => g.M = -1);
        Refused((ref GemmArgs g) => g.A.Stride = 6);
        Refused((ref GemmArgs g) => g.B.Stride = 4);
        Refused((ref GemmArgs g) => g.B.Type = ElementType.I8);
        Refused((ref GemmArgs g) => g.CStride = 4);
        Refused((ref GemmArgs g) => g.AddendStride = 9);
        unsafe
        {
            Refused((ref GemmArgs g) => g.A.Data = null);
            Refused((ref GemmArgs g) => g.C = null);
        }

        void Refused(Change change)
        {
            var test = new GemmCase(1, 3, 5, 7, addend: 1);
            change(ref test.Args);
            Assert.ThrowsAny<ArgumentException>(() => test.Run(gemm));
        }
    }

    [Fact]
    public void The_path_can_be_named()
    {
        Assert.Equal(CpuPath.Portable, CpuPaths.Choose("portable"));
        Assert.True(CpuPaths.IsSupported(CpuPaths.Choose(null)));
        Assert.Contains("sse9", Assert.Throws<InputException>(() => CpuPaths.Choose("sse9")).Message);
        foreach (var (name, path) in new[] { ("avx2", CpuPath.Avx2), ("avx512", CpuPath.Avx512) })
        {
            if (CpuPaths.IsSupported(path))
                Assert.Equal(path, CpuPaths.Choose(name));
            else
                Assert.Throws<InputException>(() => CpuPaths.Choose(name));
        }
    }

    private delegate void Change(ref GemmArgs args);
}
