using NativeLora;
using NativeLora.Bench.Compare;
using NativeLora.Bench.Load;
using NativeLora.Sample.Web;

const string Usage = """
    load     [--sessions N] [--threads N] [--seconds N] [--rounds N] [--connections 1,8,32] [--rates R,R,R] [--servers NAME,…] [--model FOLDER] [--output FOLDER]
                          the sample against the same service over ONNX Runtime, on the loopback address
    adapters [--counts 1,64,256] [--rank N] [--threads N] [--calls N] [--model FOLDER] [--output FOLDER]
                          so many adapters in one process: memory, loading, and calls with 0, 1, 16 … of them in use
    mixed    [--rows 32] [--length 32] [--rank N] [--threads N] [--runs N] [--model FOLDER] [--output FOLDER]
                          a batch with another adapter in each row, against row by row
    serve ours|onnx …     one of the servers of load, with the settings of the sample
    --output FOLDER leaves load.md and load.json (adapters.md …) there.
    """;
string[] common = ["model", "output", "threads", "rank"];
try
{
    switch (args.FirstOrDefault())
    {
        case "load":
            await LoadTest.RunAsync(new Options(args[1..], [.. common, "sessions", "seconds", "rounds", "connections", "rates", "servers"]));
            return 0;
        case "adapters":
            ManyAdapters.Run(new Options(args[1..], [.. common, "counts", "calls"]));
            return 0;
        case "adapters-of-one-process":
            ManyAdapters.RunOne(new Options(args[1..], [.. common, "folder", "loaded", "calls"]));
            return 0;
        case "mixed":
            MixedBatch.Run(new Options(args[1..], [.. common, "rows", "length", "runs"]));
            return 0;
        case "serve" when args.Length > 1 && args[1] is "ours" or "onnx":
            await using (var app = Service.Build(args[2..], args[1] == "onnx" ? options => new OnnxClassifierService(options, Setting("--Encoder="), alone: Setting("--Alone=") == "true") : null))
            {
                await app.StartAsync();
                // The first line says where it listens; the end of the input ends it.
                Console.WriteLine(app.Urls.First());
                await Console.In.ReadToEndAsync();
                await app.StopAsync();
            }
            return 0;
        default:
            Console.Error.WriteLine(Usage);
            return 2;
    }
}
catch (Exception e) when (e is InputException or RunException)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}

string Setting(string name) => args.FirstOrDefault(a => a.StartsWith(name, StringComparison.Ordinal))?[name.Length..] ?? "";
