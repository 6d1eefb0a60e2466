using NativeLora.Faults;
using NativeLora.Faults.Soak;

return Arguments.Parse(args) is { } given ? Run(given) : 2;

static int Run(Arguments given)
{
    switch (given.Campaign)
    {
        case "soak-train":
            return new SoakTrain(given.Seed).Run(given.Length, given.Output) ? 0 : 1;
        case "soak-serve":
            return new SoakServe(given.Seed).Run(given.Length, given.Output) ? 0 : 1;
    }
    var names = given.Campaign == "all" ? FaultCampaigns.Names : given.Campaign.Split(',');
    if (names.FirstOrDefault(n => !FaultCampaigns.Names.Contains(n)) is { } unknown)
    {
        Console.Error.WriteLine($"there is no campaign {unknown}; there are {string.Join(", ", FaultCampaigns.Names)}");
        return 2;
    }
    NativeLora.Faults.Campaigns.Job.Only = given.Jobs;
    var rows = new List<FaultRow>();
    foreach (var name in names)
        rows.AddRange(FaultCampaigns.Run(name, given.Scale, given.Seed, row => Console.Error.WriteLine($"{row.Fault}: {row.Tries} tries, {row.Lost} lost: {row.Seen}")));
    Console.WriteLine("| fault | tries | lost | seen |");
    Console.WriteLine("|---|---:|---:|---|");
    foreach (var row in rows)
        Console.WriteLine($"| {row.Fault} | {row.Tries} | {row.Lost} | {row.Seen.Replace('|', '/')} |");
    Console.WriteLine($"| all | {rows.Sum(r => r.Tries)} | {rows.Sum(r => r.Lost)} | |");
    return rows.Sum(r => r.Lost) == 0 ? 0 : 1;
}
