using System.Diagnostics;
using System.Text.RegularExpressions;

namespace NativeLora.Fuzz;

/// <summary>What an input did that none may.</summary>
/// <param name="Kind">exception, message, allocation, time, memory, files or hang.</param>
/// <param name="What">What happened, in a line.</param>
/// <param name="Case">The input.</param>
/// <param name="Details">More lines, such as a stack.</param>
public sealed record Finding(string Kind, string What, FuzzCase Case, string Details);

/// <summary>What a campaign came to.</summary>
public sealed record FuzzResult
{
    /// <summary>The reader.</summary>
    public required string Reader { get; init; }

    /// <summary>Inputs tried.</summary>
    public long Inputs { get; set; }

    /// <summary>Inputs that were read.</summary>
    public long Accepted { get; set; }

    /// <summary>Inputs refused as they should be.</summary>
    public long Refused { get; set; }

    /// <summary>Different refusals, numbers and quoted names aside.</summary>
    public int Refusals { get; set; }

    /// <summary>Inputs kept because they did something new.</summary>
    public int Kept { get; set; }

    /// <summary>What was wrong, each kind once.</summary>
    public List<Finding> Findings { get; } = [];

    /// <summary>Bytes that the greediest input allocated.</summary>
    public long WorstAllocated { get; set; }

    /// <summary>Milliseconds of the slowest input.</summary>
    public double WorstMilliseconds { get; set; }

    /// <summary>Seconds in all.</summary>
    public double Seconds { get; set; }
}

/// <summary>Changes the corpus of a reader again and again and looks at what the reader makes of it.</summary>
public sealed partial class Campaign(FuzzReader reader, FuzzLimits limits, string work)
{
    private const int MostKept = 4000;
    private const int MostFindings = 20;
    private const int Window = 128;
    private const double Again = 250;
    private readonly string _box = Path.Combine(work, "box");
    private readonly Dictionary<string, byte[]> _onDisk = [];
    private readonly HashSet<string> _found = [];
    private readonly HashSet<string> _outcomes = [];
    private Action<string> _read = _ => { };
    private FuzzCase? _current;
    private long _started;

    /// <summary>Runs inputs; an input that never ends ends the campaign and is among the findings.</summary>
    /// <param name="seed">The same seed tries the same inputs.</param>
    /// <param name="inputs">How many.</param>
    /// <param name="progress">Told now and then of the inputs done.</param>
    public FuzzResult Run(ulong seed, long inputs, Action<long>? progress = null)
    {
        var result = new FuzzResult { Reader = reader.Name };
        var clock = Stopwatch.StartNew();
        Exception? broken = null;
        var thread = new Thread(() =>
        {
            try
            {
                Work(result, seed, inputs, progress);
            }
            catch (Exception e)
            {
                broken = e;
            }
        })
        { IsBackground = true, Name = reader.Name };
        thread.Start();
        while (!thread.Join(200))
            if (Volatile.Read(ref _started) is var started and > 0 && Stopwatch.GetElapsedTime(started) > limits.Hang && _current is { } stuck)
            {
                result.Findings.Add(new Finding("hang", $"not done after {limits.Hang.TotalSeconds:0} s", stuck, ""));
                break;
            }
        if (broken is not null)
            throw new InvalidOperationException($"{reader.Name}: {broken.Message}", broken);
        result.Seconds = clock.Elapsed.TotalSeconds;
        return result;
    }

    /// <summary>Reads one input and tells what is wrong.</summary>
    public IReadOnlyList<Finding> Replay(FuzzCase input, out string outcome)
    {
        var result = new FuzzResult { Reader = reader.Name };
        Directory.CreateDirectory(_box);
        _read = reader.Open();
        outcome = Try(input, result, measure: true);
        return result.Findings;
    }

    private void Work(FuzzResult result, ulong seed, long inputs, Action<long>? progress)
    {
        Directory.CreateDirectory(_box);
        _read = reader.Open();
        var seeds = reader.Corpus();
        var kept = new List<FuzzCase>(seeds);
        var random = new Random(HashCode(seed, reader.Name));
        var mutator = new Mutator(random, reader.Words);
        var window = new List<FuzzCase>();
        // The first times compile code, and what is made then is no input's doing.
        foreach (var valid in seeds)
        {
            var outcome = Try(valid, result, measure: false);
            if (outcome != "ok" && !reader.RefusesAll)
                throw new InvalidOperationException($"an input of the corpus is not read: {outcome}");
            _ = Try(valid, result, measure: false);
            _ = Coverage.IsNew();
        }
        var resident = Resident.Begin(limits.CountAllThreads);
        for (long i = 0; i < inputs; i++)
        {
            var from = random.Next(4) == 0 ? seeds[random.Next(seeds.Count)] : kept[random.Next(kept.Count)];
            var input = mutator.Change(from, kept);
            if (reader.Mend is { } mend)
                input = mend(input);
            Coverage.Clear();
            var outcome = Try(input, result, measure: true);
            result.Inputs++;
            if (outcome == "ok")
                result.Accepted++;
            else
                result.Refused++;
            var isNew = _outcomes.Add(outcome);
            if ((Coverage.IsNew() || isNew) && kept.Count < MostKept)
                kept.Add(input);
            window.Add(input);
            if (window.Count == Window || i == inputs - 1)
            {
                CheckFolder(result, window);
                if (resident is { } before && Resident.Grown(before) > limits.Resident + reader.Allocates)
                    FindGreedy(result, window);
                if (resident is not null)
                    resident = Resident.Begin(true);
                window.Clear();
                progress?.Invoke(i + 1);
            }
        }
        result.Refusals = _outcomes.Count(o => o != "ok");
        result.Kept = kept.Count - seeds.Count;
        Directory.Delete(work, recursive: true);
    }

    // Not string.GetHashCode, which differs from run to run.
    private static int HashCode(ulong seed, string name)
    {
        var hash = 14695981039346656037UL ^ seed;
        foreach (var c in name)
            hash = (hash ^ c) * 1099511628211UL;
        return (int)(hash ^ (hash >> 32));
    }

    /// <summary>Reads one input.</summary>
    /// <returns>"ok", or what the refusal or the failure is about.</returns>
    private string Try(FuzzCase input, FuzzResult result, bool measure)
    {
        _current = input;
        var (outcome, allocated, milliseconds) = Once(input, result);
        if (!measure)
            return outcome;
        if (milliseconds > Again)
            milliseconds = Math.Min(milliseconds, Once(input, result).Milliseconds);
        if (milliseconds > limits.Slow.TotalMilliseconds)
            milliseconds = Math.Min(milliseconds, Once(input, result).Milliseconds);
        if (milliseconds > limits.Slow.TotalMilliseconds)
            Found(result, new Finding("time", $"{milliseconds:0} ms", input, outcome), outcome);
        var most = reader.Allocates + FuzzLimits.PerByte * input.Bytes;
        if (allocated > most)
            allocated = Math.Min(allocated, Once(input, result).Allocated);
        if (allocated > most)
            Found(result, new Finding("allocation", $"{allocated} bytes for an input of {input.Bytes}", input, outcome), outcome);
        result.WorstAllocated = Math.Max(result.WorstAllocated, allocated);
        result.WorstMilliseconds = Math.Max(result.WorstMilliseconds, milliseconds);
        return outcome;
    }

    private (string Outcome, long Allocated, double Milliseconds) Once(FuzzCase input, FuzzResult result)
    {
        Put(input);
        var before = Allocated();
        var started = Stopwatch.GetTimestamp();
        Volatile.Write(ref _started, started);
        string outcome;
        try
        {
            _read(_box);
            outcome = "ok";
        }
        catch (Exception e) when (e is InputException || (e is RunException && reader.MayFail))
        {
            outcome = Outcome(e.Message);
            if (Wrong(e.Message, input) is { } wrong)
                Found(result, new Finding("message", $"{wrong}: {Shown(e.Message)}", input, ""), wrong + Beginning(outcome));
        }
        catch (Exception e)
        {
            var origin = e.ToString().Split('\n').FirstOrDefault(l => l.Contains("at NativeLora", StringComparison.Ordinal))?.Trim() ?? "";
            outcome = $"{e.GetType().Name} {origin}";
            Found(result, new Finding("exception", $"{e.GetType().Name}: {Shown(e.Message)} {origin}", input, e.ToString()), outcome);
        }
        Volatile.Write(ref _started, 0);
        var time = Stopwatch.GetElapsedTime(started).TotalMilliseconds;
        var allocated = Allocated() - before;
        return (outcome, allocated, time);
    }

    private long Allocated() => limits.CountAllThreads ? GC.GetTotalAllocatedBytes() : GC.GetAllocatedBytesForCurrentThread();

    /// <summary>Lays the files of an input out; those that lie there already stay.</summary>
    private void Put(FuzzCase input)
    {
        if (reader.Writes)
        {
            Directory.Delete(_box, recursive: true);
            Directory.CreateDirectory(_box);
            input.Write(_box);
            return;
        }
        foreach (var name in _onDisk.Keys.Where(n => !input.Files.ContainsKey(n)).ToList())
        {
            File.Delete(Path.Combine(_box, name));
            _onDisk.Remove(name);
        }
        foreach (var (name, content) in input.Files)
        {
            if (_onDisk.TryGetValue(name, out var there) && ReferenceEquals(there, content))
                continue;
            var path = Path.Combine(_box, name);
            if (name.Contains('/', StringComparison.Ordinal))
                Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllBytes(path, content);
            _onDisk[name] = content;
        }
    }

    private string? Wrong(string message, FuzzCase input) =>
        message.Length == 0 ? "the message is empty"
        : message.Any(c => char.IsControl(c) || c is '\u2028' or '\u2029') ? "the message is not one line of text"
        : message.Length > FuzzLimits.LongestMessage + work.Length ? "the message is too long"
        : reader.NamesFile && !message.Contains(_box, StringComparison.Ordinal) && !input.Files.Keys.Any(n => message.Contains(n, StringComparison.Ordinal)) ? "the message names no file"
        : null;

    /// <summary>Nothing may appear outside the folder, and nothing in it where it is only read.</summary>
    private void CheckFolder(FuzzResult result, List<FuzzCase> window)
    {
        var others = Directory.EnumerateFileSystemEntries(work).Where(p => p != _box).ToList();
        if (!reader.Writes)
            others.AddRange(Directory.EnumerateFiles(_box, "*", SearchOption.AllDirectories).Where(p => !_onDisk.ContainsKey(Path.GetRelativePath(_box, p))));
        if (others.Count > 0)
            Found(result, new Finding("files", $"one of {window.Count} inputs wrote {string.Join(", ", others)}", window[^1], ""), "files");
    }

    private void FindGreedy(FuzzResult result, List<FuzzCase> window)
    {
        foreach (var input in window)
        {
            var before = Resident.Begin(true);
            var (outcome, _, _) = Once(input, result);
            if (before is { } start && Resident.Grown(start) is var grown && grown > limits.Resident + reader.Allocates)
                Found(result, new Finding("memory", $"{grown >> 20} MiB for an input of {input.Bytes} bytes", input, outcome), outcome);
        }
    }

    private void Found(FuzzResult result, Finding finding, string about)
    {
        if (result.Findings.Count < MostFindings && _found.Add($"{finding.Kind} {about}"))
            result.Findings.Add(finding);
    }

    /// <summary>What a message is about, whatever the names and numbers in it.</summary>
    private string Outcome(string message)
    {
        var text = Quoted().Replace(message.Replace(_box, "", StringComparison.Ordinal), "''");
        text = Numbers().Replace(text, "#");
        return text.Length <= 100 ? text : text[..100];
    }

    /// <summary>The first words of it.</summary>
    private static string Beginning(string outcome) => string.Join(' ', outcome.Split(' ', 6).Take(5));

    private static string Shown(string message)
    {
        var shown = string.Concat(message.Take(300).Select(c => char.IsControl(c) || char.IsSurrogate(c) || c is '\u2028' or '\u2029' ? $"\\u{(int)c:x4}" : c.ToString()));
        return message.Length > 300 ? shown + "…" : shown;
    }

    [GeneratedRegex("'[^']*'|\"[^\"]*\"|“[^”]*”")]
    private static partial Regex Quoted();

    [GeneratedRegex("[0-9]+")]
    private static partial Regex Numbers();
}
