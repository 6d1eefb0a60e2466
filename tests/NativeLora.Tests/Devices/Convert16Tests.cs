using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;
using NativeLora.Devices.Cpu;
using NativeLora.Tensors;

namespace NativeLora.Tests.Devices;

public class Convert16Tests
{
    [SharedFact]
    public void Agrees_with_torch()
    {
        var fp32 = MemoryMarshal.Cast<byte, float>(Golden("fp32_bits")).ToArray();
        var bf16 = MemoryMarshal.Cast<byte, ushort>(Golden("bf16_bits")).ToArray();
        var fp16 = MemoryMarshal.Cast<byte, ushort>(Golden("fp16_bits")).ToArray();
        var bf16Back = MemoryMarshal.Cast<byte, float>(Golden("bf16_back_bits")).ToArray();
        var fp16Back = MemoryMarshal.Cast<byte, float>(Golden("fp16_back_bits")).ToArray();
        Assert.Equal(20000, fp32.Length);
        var narrow = new ushort[fp32.Length];
        var wide = new float[fp32.Length];

        Convert16.F32ToBF16(fp32, narrow);
        Same(bf16, narrow, 0x7f80);
        Convert16.F32ToF16(fp32, narrow);
        Same(fp16, narrow, 0x7c00);
        Convert16.BF16ToF32(bf16, wide);
        Same(bf16Back, wide);
        Convert16.F16ToF32(fp16, wide);
        Same(fp16Back, wide);
    }

    [Fact]
    public void Widens_every_16_bit_value()
    {
        var all = Enumerable.Range(0, 65536).Select(i => (ushort)i).ToArray();
        var wide = new float[all.Length];
        Convert16.F16ToF32(all, wide);
        Same(all.Select(h => (float)BitConverter.UInt16BitsToHalf(h)).ToArray(), wide);
        Convert16.BF16ToF32(all, wide);
        Same(all.Select(h => BitConverter.UInt32BitsToSingle((uint)h << 16)).ToArray(), wide);
    }

    [Fact]
    public void Narrows_every_16_bit_value_and_its_neighbours()
    {
        // Each fp16 value, the midpoint to the next one, and the fp32 values beside both, so that ties and near-ties occur.
        var values = new List<float>();
        for (var bits = 0; bits < 65536; bits++)
        {
            var half = BitConverter.UInt16BitsToHalf((ushort)bits);
            var next = BitConverter.UInt16BitsToHalf((ushort)Math.Min(bits + 1, 65535));
            foreach (var value in new[] { (float)half, ((float)half + (float)next) / 2 })
                values.AddRange([value, MathF.BitIncrement(value), MathF.BitDecrement(value)]);
        }
        values.AddRange([65519.996f, 65520, 65536, 1e30f, -1e30f, float.MaxValue, float.Epsilon, -float.Epsilon]);
        var narrow = new ushort[values.Count];
        Convert16.F32ToF16(values.ToArray(), narrow);
        Same(values.Select(v => BitConverter.HalfToUInt16Bits((Half)v)).ToArray(), narrow, 0x7c00);
    }

    [Fact]
    public void Bf16_rounds_to_nearest_even()
    {
        var random = new Random(7);
        var values = new float[100_003];
        random.NextBytes(MemoryMarshal.AsBytes(values.AsSpan()));
        for (var i = 0; i < values.Length; i += 2)
            values[i] = BitConverter.UInt32BitsToSingle((BitConverter.SingleToUInt32Bits(values[i]) & 0xffff0000) | 0x8000);
        var narrow = new ushort[values.Length];
        Convert16.F32ToBF16(values, narrow);
        for (var i = 0; i < values.Length; i++)
        {
            var back = BitConverter.UInt32BitsToSingle((uint)narrow[i] << 16);
            if (float.IsNaN(values[i]))
            {
                Assert.True(float.IsNaN(back));
                continue;
            }
            var below = BitConverter.SingleToUInt32Bits(values[i]) & 0xffff0000;
            var rest = BitConverter.SingleToUInt32Bits(values[i]) & 0xffff;
            var up = rest > 0x8000 || (rest == 0x8000 && (below & 0x10000) != 0);
            Assert.Equal(up ? (below >> 16) + 1 : below >> 16, narrow[i]);
        }
    }

    [Fact]
    public void Any_length_gives_the_same_values()
    {
        var source = Enumerable.Range(0, 70).Select(i => (i - 35) * 0.37f).ToArray();
        var (half, brain) = (new ushort[70], new ushort[70]);
        Convert16.F32ToF16(source, half);
        Convert16.F32ToBF16(source, brain);
        for (var length = 0; length <= 70; length++)
        {
            var narrow = new ushort[length];
            var wide = new float[length];
            Convert16.F32ToF16(source.AsSpan(0, length), narrow);
            Assert.Equal(half[..length], narrow);
            Convert16.F16ToF32(narrow, wide);
            Assert.Equal(narrow.Select(h => (float)BitConverter.UInt16BitsToHalf(h)), wide);
            Convert16.F32ToBF16(source.AsSpan(0, length), narrow);
            Assert.Equal(brain[..length], narrow);
            Convert16.BF16ToF32(narrow, wide);
            Assert.Equal(narrow.Select(h => BitConverter.UInt32BitsToSingle((uint)h << 16)), wide);
        }
        Assert.Throws<ArgumentException>(() => Convert16.F32ToF16(source, new ushort[69]));
    }

    [Fact]
    public unsafe void Widen_refuses_other_types()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() =>
        {
            var value = 0f;
            Convert16.Widen(ElementType.I16, &value, &value, 1);
        });
    }

    private static byte[] Golden(string name)
    {
        var file = File.ReadAllBytes(Shared.Path("fixtures", "text", "bf16.safetensors"));
        var header = (int)BinaryPrimitives.ReadUInt64LittleEndian(file);
        using var json = JsonDocument.Parse(file.AsMemory(8, header));
        var offsets = json.RootElement.GetProperty(name).GetProperty("data_offsets");
        return file[(8 + header + offsets[0].GetInt32())..(8 + header + offsets[1].GetInt32())];
    }

    private static void Same(ushort[] expected, ushort[] actual, int infinity)
    {
        for (var i = 0; i < expected.Length; i++)
        {
            var isNaN = (expected[i] & 0x7fff) > infinity;
            Assert.True(isNaN ? (actual[i] & 0x7fff) > infinity : expected[i] == actual[i], $"{i}: {expected[i]:x4} {actual[i]:x4}");
        }
    }

    private static void Same(float[] expected, float[] actual)
    {
        for (var i = 0; i < expected.Length; i++)
        {
            var same = float.IsNaN(expected[i])
                ? float.IsNaN(actual[i])
                : BitConverter.SingleToInt32Bits(expected[i]) == BitConverter.SingleToInt32Bits(actual[i]);
            Assert.True(same, $"{i}: {expected[i]:r} {actual[i]:r}");
        }
    }
}
