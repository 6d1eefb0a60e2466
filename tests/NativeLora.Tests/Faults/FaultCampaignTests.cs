using NativeLora.Faults;
using Xunit.Abstractions;

namespace NativeLora.Tests.Faults;

/// <summary>A quick share, always the same, of the campaigns of tests/NativeLora.Faults: nothing may be lost in it.</summary>
public sealed class FaultCampaignTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData("damage", 0.05)]
    [InlineData("cancel", 0.02)]
    public void Nothing_is_lost(string campaign, double scale)
    {
        var rows = FaultCampaigns.Run(campaign, scale, seed: 7);
        foreach (var row in rows)
            output.WriteLine($"{row.Fault}: {row.Tries} tries, {row.Lost} lost: {row.Seen}");
        Assert.NotEmpty(rows);
        Assert.All(rows, row => Assert.True(row.Lost == 0, row.Seen));
        Assert.Contains(rows, row => row.Tries > 0);
    }
}
