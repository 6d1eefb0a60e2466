using NativeLora.Fuzz;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Fuzz;

/// <summary>
/// A short run of the fuzzer over each reader; the long one is <c>dotnet run -c Release --project tests/NativeLora.Fuzz</c>.
/// </summary>
public sealed class FuzzTests
{
    private const int Inputs = 400;

    public static TheoryData<string> Readers => [.. FuzzReaders.All.Where(r => !r.IsAlone).Select(r => r.Name)];

    [Theory]
    [MemberData(nameof(Readers))]
    public void InputsAreReadOrRefusedInALine(string name)
    {
        var reader = FuzzReaders.All.Single(r => r.Name == name);
        using var folder = new TemporaryFolder();
        // Other tests run beside: their threads do not count, and time is theirs too.
        var limits = new FuzzLimits { CountAllThreads = false, Slow = TimeSpan.FromSeconds(20), Hang = TimeSpan.FromSeconds(120) };
        var result = new Campaign(reader, limits, folder.File("work")).Run(7, reader.Writes ? Inputs / 5 : Inputs);
        Assert.True(result.Findings.Count == 0, string.Join('\n', result.Findings.Select(f => $"{f.Kind}: {f.What}")));
        Assert.Equal(result.Inputs, result.Accepted + result.Refused);
        Assert.Equal(reader.Writes ? Inputs / 5 : Inputs, result.Inputs);
    }

    [Fact]
    public void TheSameSeedTriesTheSameInputs()
    {
        var reader = FuzzReaders.All.Single(r => r.Name == "labels");
        var (first, second, other) = (Run(1), Run(1), Run(2));
        Assert.Equal((first.Accepted, first.Refused, first.Refusals), (second.Accepted, second.Refused, second.Refusals));
        Assert.NotEqual((first.Accepted, first.Refused), (other.Accepted, other.Refused));

        FuzzResult Run(ulong seed)
        {
            using var folder = new TemporaryFolder();
            return new Campaign(reader, new FuzzLimits { CountAllThreads = false }, folder.File("work")).Run(seed, 400);
        }
    }

    [Fact]
    public void WhatNoReaderMayDoIsFound()
    {
        Assert.Contains("exception", Kinds(_ => throw new IndexOutOfRangeException()));
        Assert.Contains("message", Kinds(_ => throw new InputException("says nothing of where")));
        Assert.Contains("allocation", Kinds(_ => GC.KeepAlive(new byte[200 << 20])));
        Assert.Contains("files", Kinds(folder => File.WriteAllText(Path.Combine(folder, "..", "outside"), "")));
        Assert.Contains("time", Kinds(_ => Thread.Sleep(700)));

        static List<string> Kinds(Action<string> broken)
        {
            using var folder = new TemporaryFolder();
            var starts = 0;
            // The valid input is read well, twice.
            var reader = FuzzReader.Of("broken", "", () => [FuzzCase.Of("file.json", "{\"a\": [1, 2]}")], at =>
            {
                if (starts++ >= 2)
                    broken(at);
            });
            return [.. new Campaign(reader, new FuzzLimits { CountAllThreads = false, Slow = TimeSpan.FromMilliseconds(500) }, folder.File("work")).Run(1, 2).Findings.Select(f => f.Kind)];
        }
    }
}
