using System.Diagnostics;
using System.Globalization;
using NativeLora;
using NativeLora.Hosting;

// Classifies texts: one an argument, or else one a line of standard input.
if (args.Length < 1 || args[0] is "-h" or "--help")
{
    Console.Error.WriteLine("usage: NativeLora.Sample.Aot MODEL-FOLDER [--adapter FOLDER] [--time] [TEXT...]");
    return 2;
}
try
{
    var rest = args.Skip(1).ToList();
    var time = rest.Remove("--time");
    var adapters = new List<AdapterSource>();
    if (rest.IndexOf("--adapter") is >= 0 and var at && at + 1 < rest.Count)
    {
        adapters.Add(new AdapterSource("adapter", rest[at + 1]));
        rest.RemoveRange(at, 2);
    }
    using var classifier = Classifier.Open(args[0], new InferenceOptions { Adapters = adapters });
    var probabilities = new float[classifier.Classes];
    foreach (var text in rest.Count > 0 ? rest : Lines())
    {
        var prediction = classifier.Predict(text, null, probabilities);
        Console.WriteLine($"{prediction.Label}\t{string.Join('\t', probabilities.Select(p => p.ToString("0.0000", CultureInfo.InvariantCulture)))}");
        if (time)
            Measure(classifier, text, probabilities);
        time = false;
    }
    return 0;
}
catch (Exception error) when (error is InputException or RunException)
{
    Console.Error.WriteLine(error.Message);
    return error is InputException ? 2 : 1;
}

static IEnumerable<string> Lines()
{
    while (Console.In.ReadLine() is { } line)
        if (line.Length > 0)
            yield return line;
}

// Time from the start of the process to the first prediction, and the median of 200 more.
static void Measure(Classifier classifier, string text, float[] probabilities)
{
    var sinceStart = DateTime.Now - Process.GetCurrentProcess().StartTime;
    var ids = classifier.Tokenizer.Encode(text, null, classifier.MaxLength).Ids;
    var times = new double[200];
    for (var i = 0; i < times.Length; i++)
    {
        var start = Stopwatch.GetTimestamp();
        classifier.Predict(ids, probabilities);
        times[i] = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }
    Array.Sort(times);
    Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
        $"first prediction after {sinceStart.TotalMilliseconds:0} ms, then {times[100]:0.000} ms (p95 {times[190]:0.000} ms) of {ids.Length} tokens, {Environment.WorkingSet / 1048576.0:0.0} MiB resident"));
}
