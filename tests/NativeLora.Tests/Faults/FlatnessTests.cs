using NativeLora.Faults.Soak;

namespace NativeLora.Tests.Faults;

/// <summary>The judge of soaks.</summary>
public sealed class FlatnessTests
{
    private static List<SoakSample> Samples(double perHour)
    {
        var random = new Random(3);
        return [.. Enumerable.Range(0, 600).Select(i => new SoakSample(6.0 * i, (long)(80_000 + (perHour * i / 600) + random.Next(-400, 400)), 0, 0, 0, 0, 0, 0, i))];
    }

    [Fact]
    public void Noise_is_flat_and_a_leak_is_not()
    {
        var flat = Flatness.Of("resident", Samples(0), s => s.ResidentKiB / 1024.0, 4);
        Assert.True(flat.IsFlat, flat.ToRow());
        Assert.InRange(0, flat.Low, flat.High);
        var leak = Flatness.Of("resident", Samples(8192), s => s.ResidentKiB / 1024.0, 4);
        Assert.False(leak.IsFlat, leak.ToRow());
        Assert.InRange(8, leak.Low, leak.High);
    }
}
