using System.Runtime.InteropServices;
using NativeLora.Devices.Cuda;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests;

[Collection(Cuda.Collection)]
public class DeviceTests
{
    [StructLayout(LayoutKind.Sequential)]
    private struct AddArgs
    {
        public nint First, Second, Result;
        public long Count;
    }

    [CudaFact]
    public void SaysWhatRuns()
    {
        Assert.Equal("cuda", Cuda.Device.Name);
        Assert.Contains("compute capability", Cuda.Device.Description, StringComparison.Ordinal);
        Assert.Equal(!Cuda.IsReal, Cuda.Device.Description.EndsWith("interpreted", StringComparison.Ordinal));
        Assert.Equal(!Cuda.IsReal, Cuda.Device.IsInterpreted);
    }

    [CudaFact]
    public void RefusesAGpuThatIsNotThere()
    {
        var error = Assert.Throws<InputException>(() => new CudaDevice(17, Cuda.Libraries));
        Assert.Contains("there is no GPU 17", error.Message, StringComparison.Ordinal);
    }

    [CudaFact]
    public void EveryKernelOfThePtxIsTakenByTheDriver()
    {
        Assert.NotEmpty(CudaModules.Names);
        foreach (var name in CudaModules.Names)
            Assert.Equal(name, Cuda.Device.Function(name).Name);
    }

    [CudaTheory]
    [InlineData(1)]
    [InlineData(4097)]
    // More than both halves of the staging memory and the part for reads.
    [InlineData((5 << 20) + 3)]
    public void CopiesBytesThereAndBack(int bytes)
    {
        using var buffer = Cuda.Device.Allocate(bytes + 7);
        var values = new byte[bytes];
        new Random(bytes).NextBytes(values);
        buffer.Clear();
        buffer.Write(5, values);
        var all = new byte[bytes + 7];
        buffer.Read(0, all);
        Assert.Equal(values, all.AsSpan(5, bytes));
        Assert.False(all.AsSpan(0, 5).ContainsAnyExcept((byte)0));
        Assert.False(all.AsSpan(bytes + 5).ContainsAnyExcept((byte)0));
    }

    [CudaFact]
    public void TheSourceMayChangeOnceItIsWritten()
    {
        const int each = 700_001, count = 12;
        using var buffer = Cuda.Device.Allocate((long)each * count);
        var values = new byte[each];
        for (var i = 0; i < count; i++)
        {
            values.AsSpan().Fill((byte)(i + 1));
            buffer.Write((long)i * each, values);
        }
        for (var i = 0; i < count; i++)
        {
            buffer.Read((long)i * each, values);
            Assert.False(values.AsSpan().ContainsAnyExcept((byte)(i + 1)));
        }
    }

    [CudaFact]
    public void ThreadsMayWriteAtOnce()
    {
        const int each = 33_333, count = 32;
        using var buffer = Cuda.Device.Allocate(each * count);
        Parallel.For(0, count, i =>
        {
            var values = new byte[each];
            values.AsSpan().Fill((byte)(i + 1));
            buffer.Write(i * each, values);
        });
        var all = new byte[each * count];
        buffer.Read(0, all);
        for (var i = 0; i < count; i++)
            Assert.False(all.AsSpan(i * each, each).ContainsAnyExcept((byte)(i + 1)));
    }

    [CudaFact]
    public void RefusesToReachBeyondABuffer()
    {
        using var buffer = Cuda.Device.Allocate(8);
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.Write(5, new byte[4]));
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.Read(-1, new byte[4]));
    }

    [CudaFact]
    public void CountsWhatIsAllocated()
    {
        var before = Cuda.Device.AllocatedBytes;
        using (Cuda.Device.Allocate(1000))
        using (var weights = Cuda.Device.Share(0, 0))
            Assert.Equal(before + 1000 + weights.Bytes, Cuda.Device.AllocatedBytes);
        Assert.Equal(before, Cuda.Device.AllocatedBytes);
    }

    [CudaFact]
    public unsafe void SharesWeightsByCopyingThem()
    {
        var values = OpCase.Random(1 << 20, 5);
        fixed (float* host = values)
        {
            using var copy = Cuda.Device.Share((nint)host, 4L * values.Length);
            var back = new float[values.Length];
            copy.Read(0, MemoryMarshal.AsBytes(back.AsSpan()));
            Assert.Equal(values, back);
        }
    }

    [CudaFact]
    public void RefusesALaunchWithOtherArguments()
    {
        var add = Cuda.Device.Function("add_f32");
        var error = Assert.Throws<InvalidOperationException>(() => add.Launch(1, 256, 0L));
        Assert.Contains("32 bytes", error.Message, StringComparison.Ordinal);
        Assert.Throws<InvalidOperationException>(() => add.Launch(1, 2048, new AddArgs()));
        Assert.Throws<InvalidOperationException>(() => Cuda.Device.Function("no_such_kernel"));
    }

    [InterpretedFact]
    public void AFaultIsOneLineThatNamesTheKernel()
    {
        using (var small = Cuda.Device.Allocate(64))
        {
            small.Clear();
            var add = Cuda.Device.Function("add_f32");
            var error = Assert.Throws<RunException>(() =>
            {
                add.Launch(1, 256, new AddArgs { First = small.Address, Second = small.Address, Result = small.Address, Count = 17 });
                Cuda.Device.Wait();
            });
            Assert.Contains("add_f32", error.Message, StringComparison.Ordinal);
            Assert.DoesNotContain('\n', error.Message);
        }
        Cuda.Reset();
    }

    [InterpretedFact]
    public void NothingIsLeftOnceTheDeviceIsGivenBack()
    {
        Cuda.Reset();
        using (var device = Cuda.Open())
        {
            using var buffer = device.Allocate(100);
            buffer.Clear();
            foreach (var name in CudaModules.Names)
                device.Function(name);
            device.Wait();
        }
        Assert.Equal("", Cuda.Leaks());
        Assert.Equal(0ul, Cuda.Count().LiveAllocations);
    }

    [InterpretedFact]
    public void MemoryThatIsNotThereIsAnErrorThatSaysSo()
    {
        var error = Assert.Throws<RunException>(() => Cuda.Device.Allocate(1L << 45));
        Assert.Contains("make the batch or the model smaller", error.Message, StringComparison.Ordinal);
        // Not a fault: the device goes on.
        using var small = Cuda.Device.Allocate(64);
        small.Clear();
        small.Read(0, new byte[64]);
    }

    [CudaTheory]
    [InlineData(false, false, ElementType.F32)]
    [InlineData(false, true, ElementType.F32)]
    [InlineData(true, false, ElementType.F32)]
    [InlineData(true, true, ElementType.F32)]
    [InlineData(false, true, ElementType.BF16)]
    public unsafe void MultipliesRowMajorMatrices(bool turnA, bool turnB, ElementType type)
    {
        const int m = 5, n = 7, k = 11, pad = 3;
        var (rowsA, columnsA) = turnA ? (k, m) : (m, k);
        var (rowsB, columnsB) = turnB ? (n, k) : (k, n);
        float[] a = Rounded(OpCase.Random(rowsA * (columnsA + pad), 1), type), b = Rounded(OpCase.Random(rowsB * (columnsB + pad), 2), type), c = OpCase.Random(m * (n + pad), 3);
        using var bufferA = Upload(a, type);
        using var bufferB = Upload(b, type);
        using var bufferC = Upload(c, ElementType.F32);
        Cuda.Device.Blas.Product(
            turnA, turnB, m, n, k, 0.5f, bufferA.Address, type, columnsA + pad, bufferB.Address, type, columnsB + pad, 2f, bufferC.Address, ElementType.F32, n + pad);
        var got = new float[c.Length];
        bufferC.Read(0, MemoryMarshal.AsBytes(got.AsSpan()));
        for (var i = 0; i < m; i++)
            for (var j = 0; j < n + pad; j++)
            {
                double sum = 0;
                for (var l = 0; l < k; l++)
                    sum += (double)(turnA ? a[l * (columnsA + pad) + i] : a[i * (columnsA + pad) + l]) * (j >= n ? 0 : turnB ? b[j * (columnsB + pad) + l] : b[l * (columnsB + pad) + j]);
                var before = c[i * (n + pad) + j];
                // What lies between the rows stays.
                Assert.Equal(j < n ? 0.5 * sum + 2 * before : before, got[i * (n + pad) + j], 1e-5);
            }
    }

    private static float[] Rounded(float[] values, ElementType type) => type == ElementType.F32 ? values
        : [.. values.Select(v => BitConverter.UInt32BitsToSingle((uint)Checkpoints.Widening.ToBFloat16(v) << 16))];

    private static Devices.DeviceBuffer Upload(float[] values, ElementType type)
    {
        var buffer = Cuda.Device.Allocate(type.Bytes(values.Length));
        buffer.Write(0, type == ElementType.F32
            ? MemoryMarshal.AsBytes(values.AsSpan())
            : MemoryMarshal.AsBytes(values.Select(Checkpoints.Widening.ToBFloat16).ToArray().AsSpan()));
        return buffer;
    }
}
