using System.Diagnostics;
using System.Globalization;
using NativeLora.Fuzz;

Coverage.Clear();
var options = FuzzOptions.Parse(args);
if (options is null)
    return 2;
if (options.Coverage && Environment.GetEnvironmentVariable("NATIVELORA_FUZZ_COUNTED") is null)
    return Counted(args);
Directory.CreateDirectory(options.Work);
var limits = new FuzzLimits();
if (options.Replay is { } folder)
{
    var reader = FuzzReaders.All.Single(r => r.Name == options.Readers[0]);
    var findings = new Campaign(reader, limits, Path.Combine(options.Work, "replay")).Replay(FuzzCase.Read(folder), out var outcome);
    Console.WriteLine($"{reader.Name}: {outcome}");
    foreach (var finding in findings)
        Console.WriteLine($"{finding.Kind}: {finding.What}\n{finding.Details}");
    return findings.Count == 0 ? 0 : 1;
}
var state = new FuzzState(options.Output);
Console.WriteLine(FuzzTable.Header);
var found = 0;
foreach (var reader in FuzzReaders.All.Where(r => options.Readers.Contains("all") || options.Readers.Contains(r.Name)))
{
    // Blocks have seeds of their own, so that a campaign that was stopped goes on with the next.
    for (long done = state.Done(reader.Name, options.Seed); done < options.Inputs; done = state.Done(reader.Name, options.Seed))
    {
        var count = Math.Min(FuzzState.Block, options.Inputs - done);
        var campaign = new Campaign(reader, limits, Path.Combine(options.Work, reader.Name));
        FuzzResult result;
        try
        {
            result = campaign.Run(options.Seed + (ulong)(done / FuzzState.Block), count);
        }
        catch (InvalidOperationException e)
        {
            Console.Error.WriteLine(e);
            found++;
            break;
        }
        state.Add(result, options.Seed);
        foreach (var finding in result.Findings)
        {
            var at = state.Keep(reader.Name, finding);
            Console.Error.WriteLine($"{reader.Name}: {finding.Kind}: {finding.What}\n    dotnet run -c Release --project tests/NativeLora.Fuzz -- --reader {reader.Name} --replay {at}");
        }
        if (result.Findings.Any(f => f.Kind == "hang"))
            break;
    }
    found += state.Found(reader.Name, options.Seed);
    Console.WriteLine(state.Row(reader, options.Seed));
}
Console.WriteLine(state.Total(options.Seed));
return found == 0 ? 0 : 1;

// A copy of this program whose readers count their branches.
static int Counted(string[] args)
{
    var copy = Directory.CreateTempSubdirectory("nativelora-fuzz-counted-").FullName;
    try
    {
        foreach (var file in Directory.EnumerateFiles(AppContext.BaseDirectory, "*", SearchOption.AllDirectories))
        {
            var target = Path.Combine(copy, Path.GetRelativePath(AppContext.BaseDirectory, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }
        Coverage.Instrument(copy);
        var start = new ProcessStartInfo(Environment.ProcessPath!) { UseShellExecute = false };
        if (Path.GetFileNameWithoutExtension(start.FileName) == "dotnet")
            start.ArgumentList.Add(Path.Combine(copy, "NativeLora.Fuzz.dll"));
        else
            start.FileName = Path.Combine(copy, Path.GetFileName(start.FileName));
        foreach (var arg in args)
            start.ArgumentList.Add(arg);
        start.Environment["NATIVELORA_FUZZ_COUNTED"] = "1";
        using var process = Process.Start(start)!;
        process.WaitForExit();
        return process.ExitCode;
    }
    finally
    {
        Directory.Delete(copy, recursive: true);
    }
}
