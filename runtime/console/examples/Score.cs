// Scores the DICOM files of one study by the service, and prints the total, the grades and the codes of warnings.
//
//     mono Score.exe ADDRESS FILE... [-o STRUCTURED_REPORT]
using System;
using System.Collections.Generic;
using System.IO;
using SpineScore;

public static class Program
{
    public static int Main(string[] words)
    {
        var views = new List<View>();
        string report = null;
        for (int i = 1; i < words.Length; i++)
        {
            if (words[i] == "-o" && i + 1 < words.Length) report = words[++i];
            else views.Add(new View { Data = File.ReadAllBytes(words[i]) });
        }
        if (views.Count == 0)
        {
            Console.Error.WriteLine("Score.exe ADDRESS FILE... [-o STRUCTURED_REPORT]");
            return 2;
        }
        try
        {
            using (var client = new Client(words[0], Environment.GetEnvironmentVariable("SPINESCORE_TOKEN")))
                Score(client, views, report);
        }
        catch (SpineScoreException error)
        {
            Console.Error.WriteLine("{0} {1}: {2}\n  next: {3}", error.Status, error.Code, error.Message, error.NextStep);
            return 1;
        }
        return 0;
    }

    private static void Score(Client client, List<View> views, string report)
    {
        string json;
        Report scored = client.Score(views, out json, formats: report == null ? null : "sr");
        foreach (Region region in scored.Regions)
            for (int i = 0; i < region.DiscCount; i++)
                foreach (Corner corner in region.Discs[i].Corners)
                    Console.WriteLine("{0} {1}", corner.Site, corner.Grade);
        for (int i = 0; i < scored.WarningCount && i < 32; i++)
            Console.WriteLine("warning: {0}", scored.Warnings[i].Code);
        Console.WriteLine("mSASSS {0}, {1} bytes of JSON", (int)scored.Total, scored.AnswerBytes);
        for (int i = 0; report != null && i < scored.ResultCount; i++)
            if (scored.Results[i].Format == "sr") client.FetchToFile(scored.Results[i].Path, report);
    }
}
