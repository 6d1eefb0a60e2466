using NativeLora.Devices.Cpu;

namespace NativeLora.Tests.Devices;

public unsafe class PhiloxTests
{
    [Fact]
    public void KnownAnswers()
    {
        Assert.Equal((0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u), Philox.Next(0, 0, 0));
        Assert.Equal((0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu), Philox.Next(ulong.MaxValue, ulong.MaxValue, ulong.MaxValue));
        // Digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
        Assert.Equal((0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u),
            Philox.Next(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e));
    }

    [Fact]
    public void AWordIsPartOfTheCounterOfItsIndex()
    {
        const ulong Index = (5UL << 40) + 11;
        var (_, _, _, w3) = Philox.Next(Philox.Mix(9), Index / 4, 3UL | 7UL << 32);
        Assert.Equal(w3, Philox.Word(9, 3, 7, Index));
        Assert.Equal(Philox.Word(9, 3, 7, Index) >= 1000, Philox.Keep(9, 3, 7, Index, 1000));
        Assert.NotEqual(Philox.Word(9, 3, 7, Index), Philox.Word(9, 4, 7, Index));
        Assert.NotEqual(Philox.Word(9, 3, 7, Index), Philox.Word(9, 3, 8, Index));
        Assert.NotEqual(Philox.Word(9, 3, 7, Index), Philox.Word(10, 3, 7, Index));
    }

    [Fact]
    public void MixOfSeeds()
    {
        // The first outputs of SplitMix64 from states 0 and 1234567.
        Assert.Equal(0xE220A8397B1DCDAFUL, Philox.Mix(0));
        Assert.Equal(6457827717110365317UL, Philox.Mix(1234567));
    }

    [Fact]
    public void Thresholds()
    {
        Assert.Equal(0u, Philox.Threshold(0f));
        Assert.Equal(0x80000000u, Philox.Threshold(0.5f));
        Assert.Equal((uint)((double)0.1f * 4294967296.0), Philox.Threshold(0.1f));
        Assert.Equal(2f, Philox.KeepScale(0.5f));
    }

    [Theory]
    [InlineData(128)]
    [InlineData(256)]
    [InlineData(512)]
    public void MasksInBulkAreTheScalarOnes(int bits)
    {
        const float P = 0.3f;
        foreach (var first in new ulong[] { 0, 1, 2, 3, 62, (1UL << 34) - 40, ulong.MaxValue / 8 })
        {
            foreach (var count in new[] { 0, 1, 2, 5, 63, 64, 65, 130, 257 })
            {
                var mask = new float[count + 1];
                mask[count] = -1f;
                fixed (float* to = mask)
                    Philox.FillMask(to, first, count, 42, 5, 6, P, bits);
                for (var i = 0; i < count; i++)
                {
                    var keep = Philox.Keep(42, 5, 6, first + (uint)i, Philox.Threshold(P));
                    Assert.Equal(keep ? Philox.KeepScale(P) : 0f, mask[i]);
                }
                Assert.Equal(-1f, mask[count]);
            }
        }
    }

    [Theory]
    [InlineData(128)]
    [InlineData(256)]
    [InlineData(512)]
    public void TilesOfMasksAreTheScalarOnes(int bits)
    {
        const int Columns = 48, Lead = 50, Groups = 3;
        // The low word of the counters overflows on the way through the columns.
        const ulong Block = (1UL << 32) - (20UL << 18) - 1, ColumnStep = 1UL << 18;
        var threshold = Philox.Threshold(0.6f);
        var mask = new float[4 * Groups * Lead];
        fixed (float* to = mask)
            Philox.FillTile(to, Lead, Block, ColumnStep, Columns, Groups, 1, 2, 3, threshold, 2.5f, bits);
        for (var row = 0; row < 4 * Groups; row++)
        {
            for (var c = 0; c < Columns; c++)
            {
                var index = 4 * (Block + (uint)c * ColumnStep) + (uint)row;
                Assert.Equal(Philox.Keep(1, 2, 3, index, threshold) ? 2.5f : 0f, mask[row * Lead + c]);
            }
        }
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(0.1f)]
    [InlineData(0.9f)]
    public void TheKeepRateIsThatAskedFor(float p)
    {
        const int Count = 400_000;
        var mask = new float[Count];
        fixed (float* to = mask)
            Philox.FillMask(to, 17, Count, 3, 1, 0, p);
        var kept = mask.Count(f => f != 0f) / (double)Count;
        // Five standard deviations.
        Assert.InRange(kept, 1 - p - 5 * Math.Sqrt(p * (1 - p) / Count), 1 - p + 5 * Math.Sqrt(p * (1 - p) / Count));
    }
}
